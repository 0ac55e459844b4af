"""Sliding windows: none twice, none left out; scores that do not depend on batches or ranks; missing values."""

import json
import threading

import numpy as np
import pytest

from foreloom.data.formats.reader import open_source
from foreloom.evaluation.baselines import Naive, SeasonalNaive
from foreloom.evaluation.sliding import Channel, SlidingWindows, channels_of
from foreloom.evaluation.sliding_scores import score_windows


class ContextMean(Naive):
    """The mean of what was observed; NaN where nothing was. Notes how many windows it is asked for at once."""

    def __init__(self):
        self.asked = []

    def predict_quantiles(self, inputs, prediction_length, quantile_levels, **options):
        self.asked.append(len(inputs))
        return [
            np.full((1, prediction_length, len(quantile_levels)), one.context_RC[np.isfinite(one.context_RC)].mean())
            if np.isfinite(one.context_RC).any()
            else np.full((1, prediction_length, len(quantile_levels)), np.nan)
            for one in inputs
        ]


def series(*lengths, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=n).astype(np.float32) for n in lengths]
    for one in values:
        one[rng.random(len(one)) < missing] = np.nan
    return tuple(Channel(f"s{i}", one, 3 + i % 2) for i, one in enumerate(values))


def by_hand(channels, context, horizon, drop_last):
    """(context, label) of every window, one by one."""
    found = []
    for channel in channels:
        values = channel.values_T
        last = len(values) - context - horizon - drop_last
        found += [(values[i : i + context], values[i + context : i + context + horizon]) for i in range(last + 1)]
    return found


@pytest.mark.parametrize("protocol", ["standard", "timemoe"])
def test_scores_are_those_of_every_window_once(protocol):
    channels = series(30, 11, 12, 13, 40, missing=0.1)
    windows = SlidingWindows(channels, 8, 4, protocol)
    expected = by_hand(channels, 8, 4, protocol == "timemoe")
    error = np.concatenate([label - np.nanmean(context.astype(np.float64)) for context, label in expected])
    for batch_size in (1, 7, 1000):
        forecaster = ContextMean()
        result = score_windows(forecaster, windows, batch_size=batch_size)
        assert result.num_windows == len(expected) == (51 if protocol == "standard" else 47)
        assert result.mse == pytest.approx(np.nanmean(error**2), rel=1e-6)
        assert result.mae == pytest.approx(np.nanmean(np.abs(error)), rel=1e-6)
        assert max(forecaster.asked) == min(batch_size, len(expected))


def test_contexts_are_views():
    windows = SlidingWindows(series(50), 8, 4, "standard")
    (piece,) = windows.pieces(3, 20)
    for offset, one in enumerate(windows.inputs(piece)):
        assert np.shares_memory(one.context_RC, windows.channels[0].values_T)
        np.testing.assert_array_equal(one.context_RC[0], windows.channels[0].values_T[3 + offset : 11 + offset])
        assert one.future_RH.shape == (1, 4)
        assert np.isnan(one.future_RH).all()


def test_each_series_keeps_its_season():
    channels = tuple(Channel(str(m), np.tile(np.arange(m, dtype=np.float32), 12), m) for m in (3, 4))
    assert score_windows(SeasonalNaive(), SlidingWindows(channels, 6, 5, "standard"), batch_size=64).mse == 0
    assert score_windows(SeasonalNaive(3), SlidingWindows(channels[1:], 6, 5, "standard")).mse == 0, "told by each"


def test_nothing_observed_is_refused_by_name_and_nothing_to_score_is_nan():
    values = np.ones(30, np.float32)
    values[10:18] = np.nan
    windows = SlidingWindows((Channel("gap", values, 1),), 8, 4, "standard")
    with pytest.raises(ValueError, match=r"forecast of 'gap' for window 10 .* not finite.* context is missing"):
        score_windows(ContextMean(), windows)
    scores = score_windows(Naive(), windows)
    assert scores.num_points_N.tolist() == [2, 1, *[0] * 5, 1, 2, 3, *[4] * 9]
    infinite = SlidingWindows((Channel("gap", np.where(np.isnan(values), np.inf, values), 1),), 8, 4, "standard")
    assert score_windows(Naive(), infinite).mse == scores.mse, "infinite values count as missing"
    nothing = SlidingWindows((Channel("end", np.r_[values[:8], values[10:14]], 1),), 8, 4, "standard")
    assert np.isnan(score_windows(Naive(), nothing).mse)
    assert score_windows(Naive(), nothing).examples == ()


def test_examples_are_the_best_the_median_and_the_worst_window():
    values = np.zeros(13, np.float32)
    values[[9, 11, 12]] = 1, 3, 9
    best, median, worst = score_windows(Naive(), SlidingWindows((Channel("x", values, 1),), 8, 1, "standard")).examples
    assert [(e.kind, e.cut, e.error) for e in (best, median, worst)] == [
        ("best", 8, 0.0),
        ("median", 10, 1.0),
        ("worst", 12, 36.0),
    ]
    np.testing.assert_array_equal(worst.context_VL[0], values[4:12])
    np.testing.assert_array_equal(worst.forecast_VHQ, [[[3.0]]])


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_give_the_same_bits_as_one(world_size):
    windows = SlidingWindows(series(40, 60, 33), 8, 4, "standard")
    alone = score_windows(Naive(), windows, batch_size=10)
    barrier, vectors, results = threading.Barrier(world_size, timeout=60), [None] * world_size, [None] * world_size
    asked = [ContextMean() for _ in range(world_size)]

    def run(rank):
        def reduce(vector):
            vectors[rank] = vector
            barrier.wait()
            total = np.sum(vectors, axis=0)
            barrier.wait()
            return total

        share = {"batch_size": 10, "rank": rank, "world_size": world_size, "reduce": reduce}
        results[rank] = score_windows(Naive(), windows, **share)
        score_windows(asked[rank], windows, **share)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert (result.mse, result.mae, result.num_windows) == (alone.mse, alone.mae, alone.num_windows)
        assert [e.cut for e in result.examples] == [e.cut for e in alone.examples]
    assert len({len(one.asked) for one in asked}) == 1, "ranks must make as many forwards, or FSDP hangs"


def test_every_target_of_other_data_in_raw_values(tmp_path, monkeypatch):
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    records = [{"item_id": "one", "target": [1, None, 3, 4]}, {"item_id": "two", "target": [[1, 2, 3], [40, 50, 60]]}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    channels = channels_of(open_source(tmp_path / "data.jsonl"))
    assert [channel.name for channel in channels] == ["one", "two[0]", "two[1]"]
    np.testing.assert_array_equal(channels[0].values_T, np.float32([1, np.nan, 3, 4]))
    np.testing.assert_array_equal(channels[2].values_T, np.float32([40, 50, 60]))
    assert SlidingWindows(channels, 2, 1, "standard").num_windows == 4
    with pytest.raises(ValueError, match=r"none of the 3 series is long enough: a context of 3 .* need 5 .* has 4"):
        SlidingWindows(channels, 3, 1, "timemoe")
