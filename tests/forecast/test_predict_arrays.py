"""`Model.predict`: every form of input, the horizon's limits, refusals."""

import warnings
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from naive_model import naive_model

import foreloom
from foreloom.data.forecast_input import ForecastInput
from foreloom.forecast import forecast_file
from foreloom.forecast.inputs import as_forecast_inputs

RAMP = np.arange(5.0)


@pytest.mark.parametrize(
    ("inputs", "shapes"),
    [
        (RAMP, [(1, 5)]),
        ([0.0, 1, 2, 3, 4], [(1, 5)]),
        (torch.arange(5), [(1, 5)]),
        (np.ones((3, 5)), [(1, 5)] * 3),
        (np.ones((3, 2, 5)), [(2, 5)] * 3),
        ([RAMP, np.ones((2, 7))], [(1, 5), (2, 7)]),
        ([[1, 2, 3], [4, 5]], [(1, 3), (1, 2)]),
        ({"target": RAMP}, [(1, 5)]),
        ([{"target": np.ones((2, 5)), "past_covariates": {"a": RAMP}}], [(3, 5)]),
    ],
)
def test_forms_of_input(inputs, shapes):
    model = naive_model()
    forecasts = model.predict(inputs, 3, [0.1, 0.5])
    assert [one.context_RC.shape for one in model.forecaster.inputs] == shapes
    num_targets = [one.num_targets for one in model.forecaster.inputs]
    assert [f.shape for f in forecasts] == [(n, 3, 2) for n in num_targets]
    assert [e.shape[0] for e in model.embed(inputs)] == [rows for rows, _ in shapes]


@pytest.mark.parametrize(
    "values",
    [
        np.ma.masked_equal(np.arange(5), 2),
        [np.ma.masked_equal(RAMP, 2.0)],
        {"target": np.ma.masked_equal(RAMP, 2.0)},
        [0, 1, None, 3, 4],
        [0, 1, pd.NA, 3, 4],
        [Decimal(0), Decimal(1), None, Decimal(3), Decimal(4)],
        pd.Series([0, 1, None, 3, 4], dtype="Int64"),
        torch.tensor([0, 1, np.nan, 3, 4], requires_grad=True),
        torch.tensor([0, 1, np.nan, 3, 4]).bfloat16(),
    ],
)
def test_what_is_masked_or_none_is_missing(values):
    model = naive_model()
    model.predict(values, 2)
    np.testing.assert_array_equal(model.forecaster.inputs[0].context_RC, [[0, 1, np.nan, 3, 4]])
    covariate = values["target"] if isinstance(values, dict) else values[0] if len(values) == 1 else values
    model.predict({"target": RAMP, "past_covariates": {"x": covariate}}, 2)
    np.testing.assert_array_equal(model.forecaster.inputs[0].context_RC[1], [0, 1, np.nan, 3, 4])


@pytest.mark.parametrize("dtype", ["object", "string", "boolean"])
def test_a_missing_label_is_none_however_pandas_holds_it(dtype):
    labels = [True, False, None, True, False] if dtype == "boolean" else ["a", "b", None, "a", "b"]
    model = naive_model()
    model.predict([{"target": RAMP, "past_covariates": {"x": x}} for x in (labels, pd.Series(labels, dtype=dtype))], 2)
    ours, theirs = (one.context_RC[1] for one in model.forecaster.inputs)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (pd.DataFrame(np.ones((60, 2))), "inputs is a frame: .* forecast by predict_df"),
        ([pd.DataFrame(np.ones((60, 2)))], "input 0 is a frame"),
        ("sales.csv", "inputs is a path: .*forecast_file"),
        (np.arange("2024-01-01", "2024-01-06", dtype="datetime64[D]"), "input 0: expected numbers .*datetime64"),
        (np.arange(5).astype("timedelta64[s]"), "input 0: expected numbers .*timedelta64"),
        (RAMP * 1j, "input 0: expected numbers .*complex128"),
        ([date(2024, 1, day) for day in (1, 2)], "input 0: expected numbers"),
        ({"target": RAMP, "past_covariates": {"x": [date(2024, 1, 1)] * 5}}, "'x' holds values of type date: give"),
        ({"target": RAMP, "past_covariates": {"x": np.zeros(5, "timedelta64[s]")}}, "'x' holds .* timedelta64"),
        ({"target": RAMP, "past_covariates": [RAMP]}, "past_covariates is of type list; write {name: values}"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_numbers_is_refused(inputs, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        naive_model().predict(inputs, 2)


def test_options_of_another_type():
    model = naive_model()
    assert model.predict(RAMP, 4.0, 0.5)[0].shape == (1, 4, 1)
    for options, sentence in (
        ({"prediction_length": "4"}, "prediction_length must be a whole number of steps, got '4'"),
        ({"prediction_length": float("nan")}, "must be a whole number of steps, got nan"),
        ({"prediction_length": True}, "must be a whole number of steps, got True"),
        ({"prediction_length": [4]}, r"must be a whole number of steps, got \[4\]"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"context_length": "x"}, "context_length must be a whole number of steps, got 'x'"),
        ({"quantile_levels": "0.5"}, "quantile_levels must be numbers between 0 and 1"),
        ({"quantile_levels": ["0.5"]}, "quantile_levels must be numbers between 0 and 1"),
        ({"unrolled_quantiles": [0.5]}, "unrolled_quantiles: naive follows no paths"),
    ):
        with pytest.raises((TypeError, ValueError), match=sentence):
            model.predict(RAMP, **options)


def test_values_reach_the_forecaster_in_the_precision_they_have(tmp_path):
    model, values = naive_model(), 1e9 + RAMP / 10
    model.predict([values, values.astype(np.float32)], 2)
    model.predict({"target": values, "past_covariates": {"x": values}}, 2)
    np.testing.assert_array_equal(model.forecaster.inputs[0].context_RC, [values, values])
    frame = pd.DataFrame({"timestamp": pd.date_range("2024-01-01", periods=5), "target": values, "x": values})
    frame.to_csv(tmp_path / "a.csv", index=False)
    forecast_file(model, tmp_path / "a.csv", tmp_path / "out.csv", prediction_length=2)
    np.testing.assert_array_equal(model.forecaster.inputs[0].context_RC, [values, values])


def test_an_input_without_a_value_is_named():
    with pytest.warns(UserWarning, match="input 1 has no value: there is nothing to forecast from"):
        naive_model().predict([RAMP, RAMP * np.nan], 2)
    with pytest.warns(UserWarning, match="input 0 has a target without a value: there is nothing to forecast it from"):
        naive_model().predict([np.stack([RAMP, RAMP * np.nan]), RAMP], 2)


def test_the_package_and_a_model_say_what_they_are(tmp_path):
    assert {"from_pretrained", "train", "Model"} <= set(dir(foreloom))
    model = naive_model()
    assert repr(model) == "<foreloom.Model naive, 0.0M parameters, context up to 16, 8 steps at once, from memory>"
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="file is a file; save_pretrained writes a folder"):
            model.save_pretrained(place)


def test_embeddings_are_of_the_newest_steps():
    model = naive_model()
    model.forecaster.embed = lambda inputs, *, batch_size: [one.context_RC for one in inputs]
    assert model.embed([np.arange(40.0)])[0].tolist() == [list(range(24, 40))]  # as many as the model looks at
    assert model.embed([np.arange(40.0)], context_length=2)[0].tolist() == [[38, 39]]


def test_covariates_known_ahead():
    model = naive_model()
    entry = {
        "target": RAMP,
        "past_covariates": {"p": RAMP, "k": RAMP, "c": list("aabbb"), "later": RAMP},
        "future_covariates": {"k": [1, 2], "c": ["b", "z"], "later": None},
    }
    model.predict(entry, 2)
    (one,) = model.forecaster.inputs
    assert (one.num_targets, one.num_past, one.num_future) == (1, 1, 3)
    np.testing.assert_allclose(one.future_RH[2:], [[(2 + 9) / 4, 2], [1, 2], [np.nan, np.nan]])


def test_defaults_and_options():
    model = naive_model()
    assert model.predict(RAMP)[0].shape == (1, 8, 3)
    assert model.forecaster.options == {"batch_size": 256, "context_length": 16, "cross_learning": False}
    model.predict(RAMP, 2, batch_size=3, context_length=4, cross_learning=True)
    assert model.forecaster.options == {"batch_size": 3, "context_length": 4, "cross_learning": True}


def test_a_horizon_beyond_the_model_warns_or_is_refused():
    model = naive_model()
    with pytest.warns(UserWarning, match="prediction_length 9 is beyond the 8 steps"):
        assert model.predict(RAMP, 9)[0].shape == (1, 9, 3)
    with pytest.raises(ValueError, match="beyond the 8 steps.*Ask for 8 or less"):
        model.predict(RAMP, 9, limit_prediction_length=True)
    model.forecaster.is_autoregressive = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict(RAMP, 9)[0].shape == (1, 9, 3)
    with pytest.raises(ValueError, match="beyond the 8 steps.*Ask for 8 or less"):
        model.predict(RAMP, 9, limit_prediction_length=True)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ([], "inputs is empty"),
        (np.ones((1, 1, 1, 5)), r"shape \(1, 1, 1, 5\) cannot be forecast"),
        ([RAMP, np.ones((1, 1, 5))], r"input 1: expected numbers of shape \(L,\) or \(V, L\), got shape \(1, 1, 5\)"),
        ([RAMP, []], r"input 1: .* got shape \(0,\)"),
        ([["a", "b"]], "input 0: expected numbers .* could not convert"),
        ([[[1, 2], [3]]], "input 0: expected numbers"),
        ([np.array([1, np.inf])], "input 0: step 1 is infinite"),
        ([np.array([1, 1e300])], r"step 1 is infinite, or beyond float32 \(3.4e38\)"),
        ([{"target": RAMP}, {"targets": RAMP}], "input 1: unknown key 'targets'. Did you mean 'target'"),
        ([{"past_covariates": {}}], "input 0: the key 'target' is missing"),
        ({"target": RAMP, "past_covariates": {"a": [1]}}, r"input 0: past covariate 'a' has shape \(1,\)"),
        (ForecastInput(RAMP[None], np.ones((1, 4)), 1), "input 0: future_RH has 4 steps; the horizon has 2"),
    ],
)
def test_what_cannot_be_forecast_is_refused_with_its_place(inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        naive_model().predict(inputs, 2)


@pytest.mark.parametrize("levels", [[], [0.5, 1.0], [0.0], [-0.1]])
def test_levels_lie_between_0_and_1(levels):
    with pytest.raises(ValueError, match="quantile_levels must lie between 0 and 1"):
        naive_model().predict(RAMP, 2, levels)


def test_a_horizon_has_a_step():
    with pytest.raises(ValueError, match="prediction_length must be at least 1, got 0"):
        naive_model().predict(RAMP, 0)
    with pytest.raises(ValueError, match="prediction_length must be a whole number of steps, got 2.5"):
        naive_model().predict(RAMP, 2.5)


def test_arrays_that_are_read_at_once_are_read_as_any_other() -> None:
    rows = [np.arange(5), np.array([1.0, np.nan, 3.0]), np.array([7], np.int64)]
    at_once = as_forecast_inputs(rows, 4)
    one_by_one = as_forecast_inputs([row.tolist() for row in rows], 4)
    assert len(at_once) == 3
    for ours, expected in zip(at_once, one_by_one, strict=True):
        np.testing.assert_array_equal(ours.context_RC, expected.context_RC, strict=True)
        np.testing.assert_array_equal(ours.future_RH, expected.future_RH, strict=True)
        assert (ours.num_targets, ours.num_past, ours.num_future) == (1, 0, 0)
