"""Events: heavy tails, trains on time, zeros of dropouts, few levels of machines, flat tops, ramps."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.synthetic.spikes import PROCESS


def _kurtosis(series: np.ndarray) -> np.ndarray:
    z = (series - series.mean(axis=1, keepdims=True)) / series.std(axis=1, keepdims=True)
    return (z**4).mean(axis=1)


@pytest.mark.parametrize("kind", ["train", "bursts"])
def test_spikes_have_heavy_tails(batch_of, kind):
    made = batch_of(PROCESS, 300, 1024, kinds=(kind,), periods=(48,))
    assert set(made.kinds) == {kind}
    assert np.median(_kurtosis(made.series)) > 5


def test_a_train_comes_every_period_and_a_third_of_them_jitter(batch_of):
    series = batch_of(PROCESS, 300, 1000, kinds=("train",), periods=(50,), noise=0.0).series
    rise = np.diff(series, axis=1)
    gaps = [np.diff(np.flatnonzero(row > 0.6 * np.sort(row)[-8])) for row in rise]
    assert 0.45 < np.mean([(gap % 50 == 0).all() for gap in gaps]) < 0.8
    assert np.median([np.median(gap) for gap in gaps]) == 50


def test_dropouts_are_zeros_or_stuck_values(batch_of):
    series = batch_of(PROCESS, 300, 2048, kinds=("dropouts",)).series
    zeros = (series == 0).mean(axis=1)
    stuck = (np.diff(series, axis=1) == 0).mean(axis=1)
    assert 0.5 < np.mean(zeros > 0) < 0.8
    assert np.mean(stuck > 0.01) > 0.95


def test_a_machine_has_few_levels(batch_of):
    series = batch_of(PROCESS, 300, 1024, kinds=("steps",), noise=0.0).series
    jumps = np.abs(np.diff(series, axis=1))
    # Nearly all of the way is made in few steps.
    jumps = jumps[jumps.any(axis=1)]
    share = np.sort(jumps, axis=1)[:, -100:].sum(axis=1) / jumps.sum(axis=1)
    assert np.median(share) > 0.8


def test_clipped_signals_have_flat_tops_or_bottoms(batch_of):
    series = batch_of(PROCESS, 300, 1024, kinds=("clipped",)).series
    at_bound = np.maximum(
        (series == series.max(axis=1, keepdims=True)).mean(axis=1),
        (series == series.min(axis=1, keepdims=True)).mean(axis=1),
    )
    assert np.mean(at_bound > 0.05) > 0.9


def test_a_sawtooth_moves_slowly_one_way_and_at_once_the_other(batch_of):
    series = batch_of(PROCESS, 300, 1024, kinds=("sawtooth",), noise=0.0, periods=(48,)).series
    step = np.diff(series, axis=1)
    steepest = np.maximum(step.max(axis=1) / -step.min(axis=1), -step.min(axis=1) / step.max(axis=1))
    assert np.median(steepest) > 5
    assert 0.35 < np.mean(step.max(axis=1) > -step.min(axis=1)) < 0.65


def test_noise_0_leaves_no_noise(batch_of):
    clean, noisy = (
        np.median(np.abs(np.diff(batch_of(PROCESS, 200, 512, kinds=("bursts",), noise=noise).series, axis=1)), axis=1)
        for noise in (0.0, 1.0)
    )
    assert np.mean(noisy > 2 * clean) > 0.5


@pytest.mark.parametrize("settings", [{"kinds": ("trains",)}, {"kinds": ()}, {"periods": (1,)}, {"noise": -1}])
def test_bad_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PROCESS.settings(**settings)
