"""The benchmark: what the forecaster is shown, batching, short series, examples."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from foreloom.evaluation.adapters.adapter import FunctionForecaster
from foreloom.evaluation.baselines import Drift, Naive, SeasonalNaive
from foreloom.evaluation.evaluate import evaluate, evaluate_tasks
from foreloom.evaluation.skill import BASELINE
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.monitoring.progress import Progress


class Recorder(Naive):
    """A naive forecaster that keeps what it was asked."""

    def __init__(self, context_length=1000):
        self.context_length = context_length
        self.asked = []

    def predict_quantiles(self, inputs, prediction_length, quantile_levels, *, batch_size=256, **options):
        self.asked.append((list(inputs), batch_size))
        return super().predict_quantiles(inputs, prediction_length, quantile_levels, batch_size=batch_size, **options)


def write(folder, **columns):
    num = len(columns["target"])
    pq.write_table(pa.table({"item_id": [f"s{i}" for i in range(num)], **columns}), folder / "data.parquet")
    return folder


def task(path, **options):
    return EvaluationTask(name="t", path=path, **{"prediction_length": 2, **options})


def test_the_forecaster_sees_the_newest_steps_and_never_the_horizon(tmp_path):
    data = write(tmp_path, target=[list(np.arange(10.0)), list(np.arange(100.0, 104.0))])
    forecaster = Recorder(context_length=5)
    result = evaluate(forecaster, [task(data)]).tasks[0]
    contexts = [one.context_RC[0].tolist() for inputs, _ in forecaster.asked[:1] for one in inputs]
    assert sorted(contexts) == [[3, 4, 5, 6, 7], [100, 101]]
    assert result.scores["MAE"] == 1.5
    assert result.scores["MASE"] == 1.5


def test_scores_are_those_of_float64_whatever_the_level(tmp_path):
    moves = np.random.default_rng(0).normal(0, 10, (3, 60)).cumsum(1)
    results = {}
    for level in (0.0, 1e8, 1e9):
        data = write(tmp_path, target=(moves + level).tolist())
        for one in (Naive(), SeasonalNaive(1), FunctionForecaster(lambda asked, horizon, _: [
            np.repeat(a.context_RC[:, -1:], horizon, axis=1) for a in asked
        ])):  # fmt: skip
            scores = evaluate(one, [task(data, prediction_length=7, season_length=7)]).tasks[0].scores
            results.setdefault(type(one), []).append([scores[name] for name in ("MASE", "MAE", "RMSE", "CRPS")])
            assert scores["WQL"] * abs(moves[:, -7:] + level).mean() == pytest.approx(scores["MAE"])
    for at_levels in results.values():
        np.testing.assert_allclose(at_levels[1:], [at_levels[0]] * 2, rtol=1e-6)
    assert results[Naive][0][0] > 0.1


def test_what_is_not_in_the_scores_is_said(tmp_path):
    rng = np.random.default_rng(0)
    plain = rng.normal(5, 1, 30)
    rows = {
        "zeros": [np.concatenate([plain, np.zeros(4)])] * 2,
        "flat": [np.full(20, 5.0)] * 3,
        "mixed": [plain, plain[:2], plain[:1], np.full(20, 5.0)],
        "huge": [np.concatenate([plain, [1e39], plain]), np.concatenate([1e9 + plain, 1e18 + plain * 1e9])],
    }
    tasks = []
    for name, target in rows.items():
        (tmp_path / name).mkdir()
        data = write(tmp_path / name, target=[list(row) for row in target])
        tasks.append(EvaluationTask(name=name, path=data, prediction_length=2))
    found = evaluate_tasks({"drift": Drift(), BASELINE: SeasonalNaive()}, tasks).notes
    for note in (
        "zeros: every label is 0, so WQL and WAPE, which divide by their size, are not defined.",
        "flat: MASE and SQL leave out all steps: their past is flat, or not known.",
        "mixed: no window fits into 2 series: 's1', 's2'.",
        "mixed: MASE and SQL leave out 2 of 4 steps: their past is flat, or not known.",
        "huge: models count values beyond float32 (3.4e38) as missing, in 1 of 2 windows: 's0'.",
        "huge: values move by less than float32 tells at the largest of them, so models see steps or a flat line, in 1 "
        "of 2 windows: 's1'.",
        "seasonal-naive errs by 0 on zeros, flat: nothing is relative to it there, and no geometric mean holds that.",
    ):
        assert note in found, found
    assert len(found) == 7


def test_batches_hold_at_most_batch_size_rows(tmp_path):
    data = write(tmp_path, target=[np.arange(2.0 * 20).reshape(2, 20).tolist()] * 5)
    forecaster = Recorder()
    evaluate(forecaster, [task(data, variates="joint")], batch_size=5)
    assert [len(inputs) for inputs, _ in forecaster.asked[:3]] == [2, 2, 1]
    assert all(sum(len(one.context_RC) for one in inputs) == rows for inputs, rows in forecaster.asked)


def test_split_and_joint_variates_score_the_same_targets(tmp_path):
    rng = np.random.default_rng(0)
    data = write(tmp_path, target=[rng.normal(size=(3, 20)).tolist()] * 2)
    split = evaluate(Naive(), [task(data, variates="split")]).tasks[0]
    joint = evaluate(Naive(), [task(data, variates="joint")]).tasks[0]
    assert joint.scores == pytest.approx(split.scores)
    assert split.sums.num_windows == joint.sums.num_windows == 6
    assert split.examples[0].name.startswith("s0[")
    assert joint.examples[0].forecast_VHQ.shape == (3, 2, 13), "deciles, and the ends of 50 and 90 %"


def test_covariates_are_shown_only_when_asked_for(tmp_path):
    ramp = list(np.arange(8.0))
    data = write(
        tmp_path, target=[[1.0] * 8], past__a=[ramp], future__b=[ramp], future_cat__c=[["x", "y"] * 4], freq=["D"]
    )
    with_covariates, without = Recorder(), Recorder(context_length=3)
    evaluate(with_covariates, [task(data, covariates=True)])
    evaluate(without, [task(data)])
    shown = with_covariates.asked[0][0][0]
    assert (shown.num_targets, shown.num_past, shown.num_future) == (1, 1, 2)
    np.testing.assert_array_equal(shown.context_RC[1], ramp[:6])
    np.testing.assert_array_equal(shown.future_RH, [[np.nan] * 2, [np.nan] * 2, [6, 7], [1, 1]])
    assert without.asked[0][0][0].context_RC.shape == (1, 3)
    with_covariates.is_univariate = False
    models = {"group": with_covariates, "naive": Naive(), BASELINE: SeasonalNaive()}
    said = "naive sees one series at a time and passes over the covariates of t."
    assert said in evaluate_tasks(models, [task(data, covariates=True)]).notes
    for shown, its in ((True, [models["group"]]), (False, list(models.values()))):
        labels = {str(n): one for n, one in enumerate(its)} | {BASELINE: SeasonalNaive()}
        assert "passes over" not in str(evaluate_tasks(labels, [task(data, covariates=shown)]).notes)


def test_short_series_are_counted_and_all_short_is_an_error(tmp_path):
    data = write(tmp_path, target=[[1.0] * 2, [1.0, 2, 3, 4, 5], [1.0] * 3])
    result = evaluate(Naive(), [task(data, num_rolls=2)]).tasks[0]
    assert (result.num_series, result.num_skipped, int(result.sums.num_windows)) == (2, 3, 3)
    with pytest.raises(ValueError, match=r"task 't': none of its 3 series is long enough .* longest has 5 steps"):
        evaluate(Naive(), [task(data, prediction_length=5)])


def test_season_of_each_series_comes_from_its_frequency_or_the_task(tmp_path):
    year = [*range(12)] * 3
    data = write(tmp_path, target=[[float(v) for v in year]] * 2, freq=["MS", "D"])
    assert evaluate(SeasonalNaive(), [task(data)]).tasks[0].scores["MAE"] == (0 + 0 + 1 + 2) / 4
    assert evaluate(SeasonalNaive(), [task(data, season_length=12)]).tasks[0].scores["MAE"] == 0


def test_a_frequency_that_there_is_not_names_its_series(tmp_path):
    data = write(tmp_path, target=[[1.0, 2.0, 3.0, 4.0]] * 2, freq=["D", "fortnight"])
    with pytest.raises(ValueError, match=r"series 's1': 'fortnight' is not a frequency.*give the task a season_length"):
        evaluate(Naive(), [task(data)])
    assert evaluate(Naive(), [task(data, season_length=1)]).tasks[0].scores["MAE"] == 1.5


def test_windows_that_see_no_whole_season_are_counted(tmp_path):
    data = write(tmp_path, target=[list(np.arange(12.0)), list(np.arange(9.0))])
    counts = [evaluate(Naive(), [task(data, season_length=m)]).tasks[0].num_short_pasts for m in (6, 7, 10, 0)]
    assert counts == [0, 1, 2, 0], "10 and 7 steps lie before the windows"


def test_a_forecast_that_is_not_finite_names_its_series(tmp_path):
    class Broken(Naive):
        def point_forecast(self, filled_RL, prediction_length):
            return np.repeat(np.where(filled_RL[:, :1] == 7, np.nan, 0.0), prediction_length, axis=-1)

    data = write(tmp_path, target=[[1.0] * 9, [7.0] * 9])
    with pytest.raises(ValueError, match=f"forecast of series 's1' of task '{task(data).name}' is not finite"):
        evaluate(Broken(), [task(data)])


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("tried to allocate 80 GiB"), RuntimeError("boom")])
def test_a_forecaster_that_fails_names_the_task(tmp_path, problem):
    def fail(inputs, prediction_length, quantile_levels):
        raise problem

    one = task(write(tmp_path, target=[[1.0] * 9]))
    with pytest.raises((ValueError, RuntimeError)) as caught:
        evaluate(FunctionForecaster(fail), [one], batch_size=64)
    if isinstance(problem, torch.OutOfMemoryError):
        assert str(caught.value).startswith(f"task {one.name!r}: a batch of 64 rows does not fit")
        assert "Lower --batch-size" in str(caught.value)
    else:
        assert caught.value is problem and f"task {one.name!r}" in caught.value.__notes__[0]


def test_examples_are_the_best_the_median_and_the_worst(tmp_path):
    series = [[0.0, 1, 0, 1, 0, jump, jump] for jump in (9.0, 1, 5, 3, 7)] + [[2.0] * 7]
    data = write(tmp_path, target=series)
    examples = evaluate(Naive(), [task(data)]).tasks[0].examples
    assert [(e.kind, e.name, e.error) for e in examples] == [
        ("best", "s1", 1),
        ("median", "s2", 5),
        ("worst", "s0", 9),
    ]
    np.testing.assert_array_equal(examples[1].context_VL, [[0, 1, 0, 1, 0]])
    np.testing.assert_array_equal(examples[1].label_VH, [[5, 5]])
    for few, kinds in ((series[:1], ["median"]), (series[:2], ["median", "worst"])):
        examples = evaluate(Naive(), [task(write(tmp_path, target=few))]).tasks[0].examples
        assert [e.kind for e in examples] == kinds, "no window is there twice"


def test_progress_counts_windows_of_all_tasks(tmp_path):
    data = write(tmp_path, target=[[1.0, 2, 3, 4]] * 5)
    seen = []

    class Told(Progress):
        def update(self, share, what):
            seen.append((share, what))

    tasks = [EvaluationTask(name=name, path=data, prediction_length=2) for name in ("a", "b")]
    evaluate(Naive(), tasks, batch_size=2, progress=Told("naive"))
    assert [share for share, _ in seen] == [0.0, 0.2, 0.4, 0.5, 0.5, 0.7, 0.9, 1.0]
    assert seen[-2][1] == "b, task 2 of 2, 4 of 5 windows"


def test_labels_that_are_missing_and_seasons_that_are_too_long_are_told_of(tmp_path):
    steps = np.arange(20.0)
    for name, values in (("whole", steps), ("cut", np.where(steps < 17, steps, np.nan))):
        (tmp_path / name).mkdir()
        write(tmp_path / name, target=[values.tolist()])
    named = (
        ("scored", "whole", {}),
        ("unlabelled", "cut", {}),
        ("yearly", "whole", {"season_length": 365}),
    )
    tasks = [
        EvaluationTask(name=name, path=tmp_path / data, prediction_length=3, **options) for name, data, options in named
    ]
    found = evaluate_tasks({"naive": Naive(), BASELINE: SeasonalNaive()}, tasks)
    assert found.notes == [
        "nothing to score, every label is missing: unlabelled.",
        "windows whose past is not longer than their task's season_length: 1 on yearly.",
    ]
    assert [(row["model"], row["task"]) for row in found.rows] == [
        (model, name) for model in ("naive", BASELINE) for name, *_ in named
    ]
    assert {model: list(tasks) for model, tasks in found.examples.items()} == {"naive": [name for name, *_ in named]}
    assert list(evaluate_tasks({BASELINE: SeasonalNaive()}, tasks[:1]).examples) == [BASELINE]
