"""Values dropped while training: how many, which, and where never.

Axes: R rows, C context, H horizon.
"""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.loader import BatchLoader
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.held_out import ValidationWindows
from foreloom.data.stream.windows import Dropping, Role, Windows
from loaders import series_loader


def sources() -> list[MemorySource]:
    rng = np.random.default_rng(0)
    univariate = [Series(str(n), rng.normal(size=(1, 150))) for n in range(30)]
    covariates = {"past": {"p": rng.normal(size=150)}, "future": {"f": rng.normal(size=150)}}
    return [MemorySource(univariate, "u"), MemorySource([Series("m", rng.normal(size=(2, 150)), **covariates)], "m")]


def loader(drop_values: float, micro: int = 0, rank: int = 0, world_size: int = 1, seed: int = 0, **settings):
    config = DataConfig(
        sources=(SourceConfig(path="u", holdout=20), SourceConfig(path="m")),
        **{"context_length": 64, "prediction_length": 16, "num_prefetch": 0, "drop_values": drop_values} | settings,
    )
    return series_loader(
        config, seed=seed, batch_size=200, micro_batch_size=micro, rank=rank, world_size=world_size, sources=sources()
    )


def one(ours: BatchLoader) -> Windows:
    (windows,) = ours.batch(0).micro_batches
    return windows


def by_row(batches) -> dict[tuple, bytes]:
    """(sample, place) -> which values are there, contexts cut to their shortest."""
    found: dict[tuple, bytes] = {}
    for batch in batches:
        for windows in batch.micro_batches:
            for row, sample in enumerate(windows.sample_R.tolist()):
                if sample >= 0:
                    place = sum(key[0] == sample for key in found)
                    there = np.isfinite(np.concatenate([windows.context_RC[row, -16:], windows.future_RH[row]]))
                    found[sample, place] = there.tobytes()
    return found


def test_shares_are_uniform_and_values_independent():
    dropping = Dropping(0.4, seed=0, stream="train")
    sample_R = np.arange(3000)
    lost_RT = dropping.lost(sample_R, np.zeros(3000, dtype=np.int64), 300, 100)
    share_R = lost_RT.mean(axis=1)
    # A uniform share, and what 400 draws of it add.
    assert abs(share_R.mean() - 0.2) < 0.01
    assert abs(share_R.std() - np.sqrt(0.4**2 / 12 + 0.147 / 400)) < 0.005
    assert share_R.max() < 0.4 + 0.1
    residual_RT = lost_RT - share_R[:, None]
    neighbours = (residual_RT[:, 1:] * residual_RT[:, :-1]).mean() / (residual_RT**2).mean()
    assert abs(neighbours) < 0.01


def test_a_value_is_lost_whatever_the_width_of_the_context():
    dropping = Dropping(0.9, seed=3, stream="train")
    sample_R, place_R = np.array([5, 5, 9]), np.array([0, 1, 0])
    wide, narrow = (dropping.lost(sample_R, place_R, width, 8) for width in (100, 10))
    np.testing.assert_array_equal(wide[:, 90:], narrow)
    assert not np.array_equal(wide[0], wide[1]) and not np.array_equal(wide[0], wide[2])


@pytest.mark.parametrize("normalization", ["none", "zero"])
def test_only_targets_lose_values(normalization):
    dropped, whole = (one(loader(share, normalization=normalization)) for share in (0.5, 0.0))
    is_target = dropped.role_R == Role.TARGET
    for name in ("context_RC", "future_RH"):
        ours, theirs = getattr(dropped, name), getattr(whole, name)
        np.testing.assert_array_equal(ours[~is_target], theirs[~is_target])
        missing = np.isnan(ours[is_target]) & ~np.isnan(theirs[is_target])
        assert 0.15 < missing.sum() / np.isfinite(theirs[is_target]).sum() < 0.35
        if normalization == "none":
            kept = np.isfinite(ours)
            np.testing.assert_array_equal(ours[kept], theirs[kept])
    if normalization == "zero":  # of what is left
        np.testing.assert_allclose(np.nanmean(dropped.context_RC, axis=1), 0, atol=1e-6)


def test_which_values_does_not_depend_on_ranks_or_micro_batches():
    whole = by_row([loader(0.5).batch(40)])
    assert by_row([loader(0.5, micro=16).batch(40)]) == whole
    assert by_row([loader(0.5, micro=16, rank=rank, world_size=3).batch(40) for rank in range(3)]) == whole
    assert by_row([loader(0.5, seed=1).batch(40)]) != whole


def test_validation_keeps_all_values():
    held_out, plain = (
        ValidationWindows(loader(share).dataset.config, max_windows=20, opened=sources()) for share in (0.9, 0.0)
    )
    for ours, theirs in zip(held_out, plain, strict=True):
        np.testing.assert_array_equal(ours.context_RC, theirs.context_RC)
        np.testing.assert_array_equal(ours.future_RH, theirs.future_RH)


def test_the_fingerprint_holds_it():
    state = loader(0.0).state_dict()
    # Pinned: with another, no run begun before could go on.
    assert state["fingerprint"] == "73ecd2308f377aaf0c2eaa35a6e011b5"
    for share in (0.2, 0.3):
        with pytest.raises(ValueError, match="data are not those"):
            loader(share).load_state_dict(state)
    with pytest.raises(ValueError, match="data are not those"):
        loader(0.3).load_state_dict(loader(0.2).state_dict())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"drop_values": 1.0}, "drop_values: expected a number below 1"),
        ({"drop_values": -0.1}, "drop_values: expected a number of at least 0"),
        ({"drop_values": 0.1, "allow_missing": False}, "which allow_missing: false refuses"),
    ],
)
def test_wrong_settings(settings, sentence):
    raw = {"sources": [{"path": "a"}], "context_length": 8, "prediction_length": 4, **settings}
    _, problems = validate(DataConfig, raw, Located(raw), "data")
    assert len(problems) == 1 and sentence in problems[0]
