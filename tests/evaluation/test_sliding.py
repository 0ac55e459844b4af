"""Every window of a data set: none twice, none left out; scores that no batch or rank changes; horizons planned."""

import json
import threading

import numpy as np
import pytest

from foreloom.data.formats.reader import open_source
from foreloom.data.source import MemorySource, Series
from foreloom.evaluation.baselines import Naive, SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.plan import plan_windows, window_reader
from foreloom.evaluation.ranks import Ranks
from foreloom.evaluation.skill import BASELINE
from foreloom.evaluation.sliding import Horizon, SlidingOptions, evaluate_sliding, horizons_of, plan_horizons, raw_task


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
    return [Series(f"s{i}", one[None]) for i, one in enumerate(values)]


def every_window(series, context, horizon, protocol="standard", **options):
    return raw_task(MemorySource(series), horizon, context, protocol, **options)


def of_values(*values, name="x", freq=None):
    return [Series(name, np.array([values], np.float32), freq=freq)]


def score(forecaster, task, **options):
    return evaluate(forecaster, [task], **options).tasks[0]


def by_hand(channels, context, horizon, drop_last):
    """(context, label) of every window, one by one."""
    found = []
    for (values,) in (one.target_VT for one in channels):
        last = len(values) - context - horizon - drop_last
        found += [(values[i : i + context], values[i + context : i + context + horizon]) for i in range(last + 1)]
    return found


@pytest.mark.parametrize("protocol", ["standard", "timemoe"])
def test_scores_are_those_of_every_window_once(protocol):
    channels = series(30, 11, 12, 13, 40, missing=0.1)
    task = every_window(channels, 8, 4, protocol)
    expected = by_hand(channels, 8, 4, protocol == "timemoe")
    error = np.concatenate([label - np.nanmean(context.astype(np.float64)) for context, label in expected])
    for batch_size in (1, 7, 1000):
        forecaster = ContextMean()
        result = score(forecaster, task, batch_size=batch_size)
        assert result.sums.num_windows == len(expected) == (51 if protocol == "standard" else 47)
        assert result.sums.num_points == np.isfinite(error).sum()
        assert result.scores["MSE"] == pytest.approx(np.nanmean(error**2), rel=1e-6)
        assert result.scores["MAE"] == pytest.approx(np.nanmean(np.abs(error)), rel=1e-6)
        assert np.isnan(result.scores["MASE"])
        assert max(forecaster.asked) == min(batch_size, len(expected))


def test_windows_are_cut_where_the_plan_says():
    task = every_window(series(50), 8, 4)
    plan = plan_windows(task, task.open(), 1000, 17)
    values = task.data.read(0).target_VT[0]
    windows = window_reader(plan)(plan.batch(1))
    assert [(window.cut, window.roll) for window in windows] == [(n + 8, n) for n in range(17, 34)], "in their order"
    for window in windows:
        np.testing.assert_array_equal(window.input.context_RC[0], values[window.cut - 8 : window.cut])
        np.testing.assert_array_equal(window.label_VH[0], values[window.cut : window.cut + 4])
        assert window.input.future_RH.shape == (1, 4)
        assert np.isnan(window.input.future_RH).all()


def test_each_series_keeps_its_season():
    three, four = (of_values(*[*range(m)] * 12, freq=f"{24 // m}h") for m in (3, 4))
    assert score(SeasonalNaive(), every_window([*three, *four], 6, 5), batch_size=64).scores["MSE"] == 0
    assert score(SeasonalNaive(3), every_window(four, 6, 5)).scores["MSE"] == 0, "told by each"
    assert score(SeasonalNaive(), every_window(four, 6, 5, season_length=3)).scores["MSE"] > 0


def test_nothing_observed_is_refused_by_name_and_nothing_to_score_is_nan():
    values = np.ones(30, np.float32)
    values[10:18] = np.nan
    with pytest.raises(ValueError, match=r"forecast of 'gap' for window 10 .* not finite.* context is missing"):
        score(ContextMean(), every_window(of_values(*values, name="gap"), 8, 4))
    scores = score(Naive(), every_window(of_values(*values), 8, 4))
    assert scores.sums.num_points == sum([2, 1, *[0] * 5, 1, 2, 3, *[4] * 9])
    infinite = every_window(of_values(*np.where(np.isnan(values), np.inf, values)), 8, 4)
    assert score(Naive(), infinite).scores["MSE"] == scores.scores["MSE"], "infinite values count as missing"
    nothing = every_window(of_values(*values[:8], *values[10:14]), 8, 4)
    assert np.isnan(score(Naive(), nothing).scores["MSE"])
    assert score(Naive(), nothing).examples == ()


def test_examples_are_the_best_the_median_and_the_worst_window():
    values = np.zeros(13, np.float32)
    values[[9, 11, 12]] = 1, 3, 9
    best, median, worst = score(Naive(), every_window(of_values(*values), 8, 1)).examples
    assert [(e.kind, e.cut, e.error) for e in (best, median, worst)] == [
        ("best", 8, 0.0),
        ("median", 10, 1.0),
        ("worst", 12, 36.0),
    ]
    np.testing.assert_array_equal(worst.context_VL[0], values[4:12])
    np.testing.assert_array_equal(worst.forecast_VHQ, [[[3.0]]])


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_give_the_same_bits_as_one(world_size):
    task = every_window(series(40, 60, 33), 8, 4)
    alone = score(Naive(), task, batch_size=10)
    barrier, vectors, results = threading.Barrier(world_size, timeout=60), [None] * world_size, [None] * world_size
    asked = [ContextMean() for _ in range(world_size)]

    def run(rank):
        def reduce(vector):
            vectors[rank] = vector
            barrier.wait()
            total = np.sum(vectors, axis=0)
            barrier.wait()
            return total

        share = {"batch_size": 10, "ranks": Ranks(rank, world_size, reduce)}
        results[rank] = score(Naive(), task, **share)
        score(asked[rank], task, **share)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert result.sums.scores() == pytest.approx(alone.sums.scores(), rel=0, abs=0, nan_ok=True)
        assert result.sums.num_windows == alone.sums.num_windows
        assert [e.cut for e in result.examples] == [e.cut for e in alone.examples]
    assert len({len(one.asked) for one in asked}) == 1, "ranks must make as many forwards, or FSDP hangs"


def test_every_target_of_other_data_in_raw_values(tmp_path, monkeypatch):
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    records = [{"item_id": "one", "target": [1, None, 3, 4]}, {"item_id": "two", "target": [[1, 2, 3], [40, 50, 60]]}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    source = open_source(tmp_path / "data.jsonl")
    task = raw_task(source, 1, 2)
    windows = window_reader(plan_windows(task, task.open(), 9, 9))(range(4))
    assert [window.name for window in windows] == ["one", "one", "two[0]", "two[1]"]
    np.testing.assert_array_equal(windows[0].input.context_RC, np.float32([[1, np.nan]]))
    np.testing.assert_array_equal([window.label_VH[0, 0] for window in windows], np.float32([3, 4, 3, 60]))
    with pytest.raises(ValueError, match=r"none of the 3 series is long enough: a context of 3 .* need 5 .* has 4"):
        raw_task(source, 1, 3, "timemoe")


def horizons(*steps):
    def task(name, horizon, context):
        return every_window(of_values(*[0.0] * 600, name="a"), context, horizon, name=name)

    return [Horizon(f"d-{one}", "d", one, task, is_scaled=True) for one in steps]


def test_contexts_by_horizon_but_never_more_than_the_model_uses():
    tasks, notes = plan_horizons(horizons(24, 96, 150), None, 500)
    lengths = {name: one and one.context_length for name, one in tasks.items()}
    assert lengths == {"d-24": 96, "d-96": 500, "d-150": None}
    assert notes[0] == "horizon 96: the context is 500 steps, all that the model uses, instead of 512."
    assert notes[1].startswith("horizon 150 was not scored. none of the 1 series is long enough: a context of 500")
    tasks, notes = plan_horizons(horizons(96), 64, 500)
    assert (tasks["d-96"].context_length, notes) == (64, [])
    with pytest.raises(ValueError, match="context of 501 steps was asked for, but the model uses 500 at most"):
        plan_horizons(horizons(96), 501, 500)
    with pytest.raises(ValueError, match=r"horizon 700 was not scored.*\nhorizon 800 was not scored"):
        plan_horizons(horizons(700, 800), 64, 500)


def test_covariates_are_shown_to_no_model_which_is_said(tmp_path):
    rows = "".join(f"a,{day},{day % 3},{day}\n" for day in range(9))
    (tmp_path / "promo.csv").write_text("item_id,timestamp,target,price\n" + rows)
    options = SlidingOptions(horizons=(2,), context_length=3)
    notes = evaluate_sliding({BASELINE: SeasonalNaive()}, horizons_of(tmp_path / "promo.csv", options), options).notes
    assert notes[0].startswith(
        "every window is scored on values alone: no model is given the covariates of promo-2. foreloom backtest gives"
    )


def test_columns_belong_to_a_csv(tmp_path):
    with pytest.raises(ValueError, match="data.jsonl: channels names columns of a CSV"):
        horizons_of(tmp_path / "data.jsonl", SlidingOptions(channels=("a",)))


def test_lengths_beyond_the_model_are_refused_before_anything_is_computed(tiny_time_moe, tmp_path):
    from foreloom.models.time_moe.family import FAMILY

    data = tmp_path / "long.jsonl"
    data.write_text(json.dumps({"target": [float(i % 7) for i in range(4400)]}) + "\n")
    limit = tiny_time_moe.architecture.max_position_embeddings
    forecasters = {"model": FAMILY.forecaster(tiny_time_moe), BASELINE: SeasonalNaive()}
    context = forecasters["model"].context_length - 1
    options = SlidingOptions(horizons=(8, limit - 10), context_length=context)
    with pytest.raises(
        ValueError, match=f"{context} and prediction_length {limit - 10} are {context + limit - 10} steps"
    ):
        evaluate_sliding(
            forecasters, horizons_of(data, options), options, evaluator=lambda *_, **__: pytest.fail("computed")
        )


def test_raw_values_for_a_model_of_unit_scale_get_a_note(tiny_time_moe, tmp_path, monkeypatch):
    from foreloom.models.time_moe.family import FAMILY

    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "short.jsonl"
    data.write_text(json.dumps({"target": [100.0 + i % 7 for i in range(30)]}) + "\n")

    def notes(normalization):
        options = SlidingOptions(horizons=(4,), context_length=20, normalization=normalization)
        forecasters = {"model": FAMILY.forecaster(tiny_time_moe), BASELINE: SeasonalNaive()}
        found = evaluate_sliding(forecasters, horizons_of(data, options), options)
        assert [row["model"] for row in found.rows] == ["model", "last-value", BASELINE]
        assert list(found.examples) == ["model"]
        return found.notes

    (note,) = notes("none")
    assert note.startswith("model expects values of unit scale and was given raw ones")
    assert notes("context") == []
