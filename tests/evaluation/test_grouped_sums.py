"""Scores by window and target: fev's definitions, written out for a few numbers, and the same on several ranks."""

import numpy as np
import pytest

from foreloom.data.convert import convert
from foreloom.evaluation.baselines import Naive, SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.metrics import GroupedSums, MetricSums, metric_sums
from foreloom.evaluation.ranks import Ranks
from foreloom.evaluation.tasks import EvaluationTask

LEVELS = (0.1, 0.5, 0.9)


def by_hand(label_NHD, forecast_NHDQ, scale_ND):
    """fev's four metrics of one window, target by target, in the plainest way."""
    scores = {name: [] for name in ("SQL", "MASE", "WAPE", "WQL")}
    for d in range(label_NHD.shape[2]):
        label, forecast, scale = label_NHD[:, :, d], forecast_NHDQ[:, :, d], scale_ND[:, d]
        error = np.abs(label - forecast[..., 1])
        levels = list(enumerate(LEVELS))
        excess = [label - forecast[..., i] for i, _ in levels]
        loss = np.stack([2 * np.maximum(q * excess[i], (q - 1) * excess[i]) for i, q in levels])
        size = max(np.nanmean(np.abs(label)), 1.0)
        usable = scale > 0
        scores["MASE"].append(np.nanmean(error[usable] / scale[usable, None]))
        scores["SQL"].append(np.nanmean(loss[:, usable] / scale[usable, None], axis=(1, 2)).mean())
        scores["WAPE"].append(np.nanmean(error) / size)
        scores["WQL"].append(np.nanmean(loss, axis=(1, 2)).mean() / size)
    return {name: np.mean(values) for name, values in scores.items()}


@pytest.fixture
def window():
    rng = np.random.default_rng(0)
    label = rng.normal(size=(5, 4, 2)) * [1.0, 30.0] + [0.0, 100.0]
    label[0, 1, 0] = label[3, :2, 1] = np.nan
    forecast = np.sort(rng.normal(size=(5, 4, 2, 3)), axis=-1) * 5 + 50
    scale = rng.uniform(0.5, 2.0, size=(5, 2))
    scale[2, 0] = np.nan
    return label, forecast, scale


def grouped(window, items):
    label, forecast, scale = (part[items] for part in window)
    names = [str(i) for i in range(len(label))]
    return GroupedSums(
        {(0, d): metric_sums(forecast[:, :, d], label[:, :, d], scale[:, d], LEVELS, names) for d in range(2)}
    )


def test_fev_metrics_of_arrays(window):
    scores = grouped(window, slice(None)).scores()
    expected = by_hand(*window)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_parts_add_and_travel_as_one_vector(window):
    whole = grouped(window, slice(None))
    zero = GroupedSums.zero([(0, 1), (0, 0), (0, 1)], LEVELS)
    total = zero + grouped(window, slice(0, 2)) + grouped(window, slice(2, 5))
    back = zero.with_vector(total.vector())
    assert back.scores() == pytest.approx(whole.scores(), rel=1e-12)
    assert (int(back.num_windows), int(back.num_points)) == (10, 37)


def test_a_group_that_cannot_be_scored_is_left_out(window):
    whole = grouped(window, slice(None))
    empty = GroupedSums({**whole.groups, (1, 0): MetricSums.zero(LEVELS)})
    assert empty.scores() == pytest.approx(whole.scores(), rel=1e-12)


def test_evaluate_averages_over_windows_and_targets(tmp_path):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 2, 40)).cumsum(axis=-1) * [[[1.0], [20.0]]]
    lines = [f'{{"item_id": "{i}", "target": {series.tolist()}}}' for i, series in enumerate(values)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    convert(tmp_path / "data.jsonl", tmp_path / "data.arrow")
    plain = {"name": "t", "path": tmp_path / "data.arrow", "prediction_length": 4, "num_rolls": 3, "season_length": 2}
    task = EvaluationTask(**plain, variates="joint", average_over="targets", quantile_levels=LEVELS)
    (result,) = evaluate(SeasonalNaive(), [task], batch_size=3).tasks

    windows = []
    for roll in range(3):
        cut = 40 - 4 * (3 - roll)
        label = values[:, :, cut : cut + 4].swapaxes(1, 2)
        forecast = values[:, :, [cut - 2, cut - 1, cut - 2, cut - 1]].swapaxes(1, 2)
        scale = np.abs(values[:, :, 2:cut] - values[:, :, : cut - 2]).mean(axis=-1)
        windows.append(by_hand(label, np.repeat(forecast[..., None], 3, axis=-1), scale))
    expected = {name: np.mean([window[name] for window in windows]) for name in windows[0]}
    assert {name: result.scores[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert int(result.sums.num_windows) == 18

    # Two ranks: each one's vector added to the other's.
    vectors = []
    for rank in range(2):
        with pytest.raises(StopIteration):
            evaluate(SeasonalNaive(), [task], batch_size=3, ranks=Ranks(rank, 2, keep(vectors)))
    total = evaluate(SeasonalNaive(), [task], batch_size=3, ranks=Ranks(0, 2, lambda _: sum(vectors)))
    assert total.tasks[0].scores == result.scores, "to the last bit"

    pooled = evaluate(SeasonalNaive(), [EvaluationTask(**plain, quantile_levels=LEVELS)]).tasks[0].scores
    assert pooled["MAE"] == pytest.approx(result.scores["MAE"])
    assert pooled["WAPE"] != pytest.approx(result.scores["WAPE"], rel=0.01)


def keep(vectors):
    def reduce(vector):
        vectors.append(vector)
        raise StopIteration

    return reduce


def test_a_past_shorter_than_a_season_has_no_scaled_error(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"target": [1, 2, 4, 8, 16]}\n{"target": [1, 2, 4, 8, 16, 32, 64]}')
    plain = {"name": "t", "path": tmp_path / "data.jsonl", "prediction_length": 2, "season_length": 4}
    pooled = evaluate(Naive(), [EvaluationTask(**plain)]).tasks[0].sums
    fev = evaluate(Naive(), [EvaluationTask(**plain, average_over="targets")]).tasks[0].sums
    assert pooled.num_scaled == 4  # GluonTS: a season of 1 for the short one
    assert fev.pooled.num_scaled == 2
