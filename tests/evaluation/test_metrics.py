"""Metrics: golden numbers from GluonTS, hand calculations, missing labels, refused forecasts; fev's by window and
target."""

from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metric_case import HORIZON, LEVELS, series_and_forecasts

from foreloom.data.convert import convert
from foreloom.evaluation.baselines import Naive, SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.metrics import (
    GroupedSums,
    MetricSums,
    central_intervals,
    metric_sums,
    seasonal_error,
    window_errors,
)
from foreloom.evaluation.ranks import Ranks
from foreloom.evaluation.tasks import EvaluationTask

# gluonts 0.17.0, evaluate_forecasts on metric_case: season 5 and 7. CRPS is its mean_sum_quantile_loss over the 23
# observed labels, SQL its average_mean_scaled_quantile_loss.
SHARED_SCORES = {
    "WQL": 0.07471481915382525, "MAE": 1.7010748441418015, "MSE": 3.9180296919797017, "RMSE": 1.979401346867204,
    "sMAPE": 0.10602570335590103, "CRPS": 28.76464277254372 / 23,
}  # fmt: skip
GLUONTS = {
    5: SHARED_SCORES | {"MASE": 1.2037968108717196, "SQL": 0.8683185130523509},
    7: SHARED_SCORES | {"MASE": 1.194306670706602, "SQL": 0.8616297532488437},
}


def score(season):
    series, forecast_SHQ = series_and_forecasts()
    label_SH = np.stack([y[-HORIZON:] for y in series])
    scale_S = [seasonal_error(y[None, :-HORIZON], season)[0] for y in series]
    return metric_sums(forecast_SHQ, label_SH, scale_S, LEVELS, [f"series {i}" for i in range(4)]).scores()


@pytest.mark.parametrize("season", [5, 7])
def test_equal_to_gluonts(season):
    scores = score(season)
    assert {name: scores[name] for name in GLUONTS[season]} == pytest.approx(GLUONTS[season], rel=1e-12)


@pytest.mark.parametrize("season", [5, 7])
def test_equal_to_the_installed_gluonts(season):
    ev = pytest.importorskip("gluonts.ev.metrics")
    pd = pytest.importorskip("pandas")
    from gluonts.dataset.split import split
    from gluonts.model.evaluation import evaluate_forecasts
    from gluonts.model.forecast import QuantileForecast

    series, forecasts = series_and_forecasts()
    start = pd.Period("2024-01-01 00:00", freq="h")
    data = [{"target": y, "start": start, "item_id": str(i)} for i, y in enumerate(series)]
    test_data = split(data, offset=-HORIZON)[1].generate_instances(HORIZON)
    theirs = evaluate_forecasts(
        [
            QuantileForecast(f.T, start_date=start + len(y) - HORIZON, forecast_keys=[str(q) for q in LEVELS])
            for f, y in zip(forecasts, series, strict=True)
        ],
        test_data=test_data,
        metrics=[
            ev.MeanWeightedSumQuantileLoss(LEVELS),
            ev.MASE(),
            ev.SMAPE(),
            ev.RMSE("0.5"),
            ev.AverageMeanScaledQuantileLoss(LEVELS),
        ],
        seasonality=season,
    )
    ours = score(season)
    assert [ours[name] for name in ("WQL", "MASE", "sMAPE", "RMSE", "SQL")] == pytest.approx(
        theirs.iloc[0].tolist(), rel=1e-6
    )


def test_a_forecast_worked_by_hand():
    label_SH = np.array([[10.0, np.nan], [0.0, 4.0]])
    forecast_SHQ = np.array([[[8, 9, 12], [0, 0, 0]], [[-1, 0, 1], [5, 6, 7]]], dtype=float)
    scores = metric_sums(forecast_SHQ, label_SH, [2.0, np.nan], (0.25, 0.5, 0.75), ["a", "b"]).scores()
    losses = [2 * 0.25 * 2 + 0.5 + 2 * 0.75 * 1, 1 + 0 + 2, 2 * 0.25 * 2 + 0.5 + 2 * 0.25 * 3]
    assert scores["WQL"] == pytest.approx(
        np.mean([(2 * 0.25 * 2 + 2 * 0.25 * 1 + 2 * 0.75 * 1) / 14, (1 + 0 + 2) / 14, (0.5 * 2 + 0.5 + 0.5 * 3) / 14])
    )
    assert scores["CRPS"] == pytest.approx(sum(losses) / 9)
    assert scores["MAE"] == pytest.approx((1 + 0 + 2) / 3)
    assert scores["MSE"] == pytest.approx((1 + 0 + 4) / 3)
    assert scores["MASE"] == pytest.approx(1 / 2)  # the second series has no scale
    assert scores["sMAPE"] == pytest.approx((2 / 19 + 4 / 10) / 2)  # 0 against 0 is left out
    assert scores["coverage_50"] == pytest.approx(2 / 3)


class OfLevels(Naive):
    """A standard normal at the levels it has, whatever it is asked; notes what that was."""

    quantile_levels = (0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95)

    def predict_quantiles(self, inputs, prediction_length, quantile_levels, **options):
        self.asked = quantile_levels
        values = [NormalDist().inv_cdf(level) for level in quantile_levels]
        return [np.tile(values, (one.num_targets, prediction_length, 1)) for one in inputs]


def test_bands_beside_the_levels_that_are_scored(tmp_path):
    label = np.random.default_rng(0).normal(size=(40, 60))
    rows = {"item_id": [f"s{i}" for i in range(40)], "target": label.tolist()}
    pq.write_table(pa.table(rows), tmp_path / "data.parquet")
    task = EvaluationTask(name="t", path=tmp_path, prediction_length=50)
    forecaster = OfLevels()
    (result,) = evaluate(forecaster, [task]).tasks
    assert forecaster.asked == (0.05, *task.quantile_levels, 0.95), "0.25 and 0.75, which it has not, are read between"
    assert result.sums.bands == (20, 40, 50, 60, 80, 90)
    z = {p: NormalDist().inv_cdf(p) for p in (0.2, 0.3, 0.7, 0.8, 0.9, 0.95)}
    ends = {80: (-z[0.9], z[0.9]), 90: (-z[0.95], z[0.95]), 50: ((z[0.2] + z[0.3]) / 2, (z[0.7] + z[0.8]) / 2)}
    for percent, (low, high) in ends.items():
        inside = np.mean((low <= label[:, -50:]) & (label[:, -50:] <= high))
        assert result.scores[f"coverage_{percent}"] == pytest.approx(inside)
        assert inside == pytest.approx(percent / 100, abs=0.03)
    deciles = metric_sums(
        np.tile([NormalDist().inv_cdf(p) for p in task.quantile_levels], (40, 50, 1)), label[:, -50:], np.zeros(40),
        task.quantile_levels, [""] * 40,
    ).scores()  # fmt: skip
    assert result.scores["WQL"] == pytest.approx(deciles["WQL"], rel=1e-12), "no band has a say in it"


def test_nothing_to_score_is_nan_not_zero():
    sums = metric_sums(np.zeros((1, 2, 3)), np.full((1, 2), np.nan), [1.0], (0.1, 0.5, 0.9), ["a"])
    assert all(np.isnan(value) for value in sums.scores().values())
    assert sums.num_windows == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_forecast_is_refused_with_its_series(value):
    forecast_SHQ = np.zeros((2, 3, 1))
    forecast_SHQ[1, 2] = value
    with pytest.raises(ValueError, match=r"forecast of series 'b' is not finite at step 3"):
        metric_sums(forecast_SHQ, np.full((2, 3), np.nan), [1, 1], (0.5,), ["series 'a'", "series 'b'"])


def test_seasonal_error_skips_missing_pairs_and_shortens_the_season():
    past_VT = np.array([[1, 2, np.nan, 5, 9], [1, 1, 1, 1, 1], [np.nan] * 5])
    np.testing.assert_allclose(seasonal_error(past_VT, 2), [3.0, 0, np.nan])  # only 2 -> 5 is a whole pair
    np.testing.assert_allclose(seasonal_error(past_VT, 5), seasonal_error(past_VT, 1))
    np.testing.assert_allclose(seasonal_error(past_VT[:, :1], 1), [np.nan] * 3)


def test_infinite_values_count_as_missing():
    past_VT = np.array([[1.0, 2, np.inf, 5, 9, -np.inf, np.inf, 3]])
    np.testing.assert_allclose(seasonal_error(past_VT, 1), [(1 + 4) / 2])
    np.testing.assert_allclose(seasonal_error(past_VT, 3), [(4 + 7 + 6) / 3])  # 1 -> 5, 2 -> 9, 9 -> 3
    forecast_SHQ, label_SH = np.ones((1, 2, 1)), np.array([[np.inf, 3.0]])
    scores = metric_sums(forecast_SHQ, label_SH, np.array([4.0]), (0.5,), ["a"]).scores()
    assert scores["MASE"] == 0.5 == window_errors(forecast_SHQ[..., 0], label_SH, np.array([4.0]))[0]


def test_window_errors_are_each_windows_mase():
    errors = window_errors(np.array([[1.0, 1], [1, 1], [1, 1]]), np.array([[2.0, np.nan], [3, 3], [3, 3]]), [2, 0, 4])
    np.testing.assert_allclose(errors, [0.5, np.nan, 0.5])


def test_intervals_pair_levels_around_the_median():
    assert central_intervals((0.05, 0.1, 0.3, 0.5, 0.7, 0.9)) == [(40, 2, 4), (80, 1, 5)]


def test_levels_without_a_median_are_refused():
    with pytest.raises(ValueError, match=r"lack 0\.5"):
        MetricSums.zero((0.1, 0.9))


THREE_LEVELS = (0.1, 0.5, 0.9)


def by_hand(label_NHD, forecast_NHDQ, scale_ND):
    """fev's four metrics of one window, target by target, in the plainest way."""
    scores = {name: [] for name in ("SQL", "MASE", "WAPE", "WQL")}
    for d in range(label_NHD.shape[2]):
        label, forecast, scale = label_NHD[:, :, d], forecast_NHDQ[:, :, d], scale_ND[:, d]
        error = np.abs(label - forecast[..., 1])
        levels = list(enumerate(THREE_LEVELS))
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
        {(0, d): metric_sums(forecast[:, :, d], label[:, :, d], scale[:, d], THREE_LEVELS, names) for d in range(2)}
    )


def test_fev_metrics_of_arrays(window):
    scores = grouped(window, slice(None)).scores()
    expected = by_hand(*window)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_parts_add_and_travel_as_one_vector(window):
    whole = grouped(window, slice(None))
    zero = GroupedSums.zero([(0, 1), (0, 0), (0, 1)], THREE_LEVELS)
    total = zero + grouped(window, slice(0, 2)) + grouped(window, slice(2, 5))
    back = zero.with_vector(total.vector())
    assert back.scores() == pytest.approx(whole.scores(), rel=1e-12)
    assert (int(back.num_windows), int(back.num_points)) == (10, 37)


def test_a_group_that_cannot_be_scored_is_left_out(window):
    whole = grouped(window, slice(None))
    empty = GroupedSums({**whole.groups, (1, 0): MetricSums.zero(THREE_LEVELS)})
    assert empty.scores() == pytest.approx(whole.scores(), rel=1e-12)


def test_evaluate_averages_over_windows_and_targets(tmp_path):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 2, 40)).cumsum(axis=-1) * [[[1.0], [20.0]]]
    lines = [f'{{"item_id": "{i}", "target": {series.tolist()}}}' for i, series in enumerate(values)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    convert(tmp_path / "data.jsonl", tmp_path / "data.arrow")
    plain = {"name": "t", "path": tmp_path / "data.arrow", "prediction_length": 4, "num_rolls": 3, "season_length": 2}
    task = EvaluationTask(**plain, variates="joint", average_over="targets", quantile_levels=THREE_LEVELS)
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

    pooled = evaluate(SeasonalNaive(), [EvaluationTask(**plain, quantile_levels=THREE_LEVELS)]).tasks[0].scores
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
