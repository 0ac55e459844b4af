"""Rows of one thing to forecast: order, counts, missing futures, refusals; parity with chronos-forecasting."""

import json

import numpy as np
import pytest

from foreloom.data.forecast_input import forecast_input

TARGET = np.array([[1.0, 2, 3]])


def test_rows_are_targets_then_past_then_future_covariates_by_name():
    past = {"z": [1, 2, 3], "b": [4, 5, 6], "a": [7, 8, 9], "k": [0, 0, 1]}
    rows = forecast_input(TARGET, past, {"k": [2, 3], "b": None}, 2)
    nan = np.nan
    np.testing.assert_array_equal(rows.context_RC, [TARGET[0], past["a"], past["z"], past["b"], past["k"]])
    np.testing.assert_array_equal(rows.future_RH, [[nan] * 2, [nan] * 2, [nan] * 2, [nan] * 2, [2, 3]])
    assert (rows.num_targets, rows.num_past, rows.num_future) == (1, 2, 2)
    assert rows.context_RC.dtype == rows.future_RH.dtype == np.float64


def test_infinite_values_are_missing():
    rows = forecast_input(np.array([[1, np.inf, 3]]), {"a": [1, 2, -np.inf]}, {"a": [np.inf, 1]}, 2)
    np.testing.assert_array_equal(rows.context_RC, [[1, np.nan, 3], [1, 2, np.nan]])
    np.testing.assert_array_equal(rows.future_RH[1], [np.nan, 1])


@pytest.mark.parametrize(
    ("past", "future", "sentence"),
    [
        ({"price": [1, 2, 3]}, {"prise": [1, 2]}, "future covariate 'prise' has no values over the past.*'price'"),
        ({"price": [1, 2]}, {}, r"past covariate 'price' has shape \(2,\); the target has 3 steps"),
        ({"price": [1, 2, 3]}, {"price": [1]}, r"future covariate 'price' has shape \(1,\); the horizon has 2 steps"),
        ({"price": [1, 2, 3]}, {"price": ["a", "b"]}, "'price' holds numbers over the past and categories"),
    ],
)
def test_what_does_not_fit_is_refused(past, future, sentence):
    with pytest.raises(ValueError, match=sentence):
        forecast_input(TARGET, past, future, 2)


def values(raw):
    """JSON with null for NaN."""
    if any(isinstance(v, str) for v in raw):
        return np.array(raw, dtype=object)
    return np.array(raw, dtype=float)


@pytest.mark.parametrize("name", ["c2a", "c2noreg"])
@pytest.mark.parametrize(("tasks", "prefix", "horizon"), [("tasks", "prep", "long"), ("tasks2", "prep2", "small")])
def test_rows_equal_those_of_chronos(shared, name, tasks, prefix, horizon):
    raw = json.loads((shared / "oracles" / "chronos" / f"{name}_covariates.json").read_text())
    expected = np.load(shared / "oracles" / "chronos" / f"{name}_covariates.npz")
    for i, entry in enumerate(raw[tasks]):
        rows = forecast_input(
            np.atleast_2d(np.array(entry["target"], dtype=float)),
            {key: values(past) for key, past in entry["past_covariates"].items()},
            {key: values(future) for key, future in entry["future_covariates"].items()},
            raw[f"prediction_length_{horizon}"],
        )
        np.testing.assert_array_equal(rows.context_RC.astype(np.float32), expected[f"{prefix}_context_{i}"])
        np.testing.assert_array_equal(rows.future_RH.astype(np.float32), expected[f"{prefix}_future_{i}"])
        if prefix == "prep":
            counts = (rows.num_targets, rows.num_past + rows.num_future, rows.num_future)
            assert counts == tuple(expected["prep_counts"][i])
