"""Metrics: golden numbers from GluonTS, hand calculations, missing labels, refused forecasts."""

import numpy as np
import pytest
from metric_case import HORIZON, LEVELS, series_and_forecasts

from foreloom.evaluation.metrics import MetricSums, central_intervals, metric_sums, seasonal_error, window_errors

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
