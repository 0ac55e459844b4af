"""Options and methods of other forecasting libraries are met with what they are called here."""

from __future__ import annotations

import copy
import inspect
import re

import numpy as np
import pandas as pd
import pytest

import foreloom
from foreloom.forecast import Model, elsewhere


@pytest.fixture(scope="module")
def model() -> Model:
    return foreloom.from_pretrained("small", device="cpu")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    times = pd.date_range("2024-01-01", periods=40)
    return pd.DataFrame({"unique_id": "a", "ds": times, "y": np.arange(40.0) % 7})


def test_every_option_it_leads_to_is_one():
    known = {
        name
        for method in (Model.predict, Model.predict_df, Model.cross_validation, Model.fit, foreloom.from_pretrained)
        for name in inspect.signature(method).parameters
    } | {"max_new_tokens", "static"}
    named = {name for here in elsewhere._OPTIONS for name in re.findall(r"\b([a-z]\w+)=[\[A-Z'T0]", here)}
    assert len(named) > 14 and named - {"level"} <= known | {"temperature"}


def test_a_word_leads_to_one_thing_and_is_none_of_ours():
    for table in (elsewhere._OPTIONS, elsewhere._ATTRIBUTES):
        words = " ".join(table.values()).split()
        assert sorted({word for word in words if words.count(word) > 1}) == []
    assert not any(hasattr(Model, name) for name in elsewhere._ATTRIBUTE_HERE)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda model, table: model.predict_df(table, h=7), "predict_df has no option 'h'. Here: prediction_length=N."),
        (lambda model, table: model.predict_df(table, prediction_length=7, level=[80]), "quantile_levels=[0.1, 0.9]"),
        (lambda model, table: model.predict(context=[1.0, 2.0]), "Here: inputs, the first argument."),
        (lambda model, table: model.cross_validation(table, n_windows=2), "Here: windows=N."),
        (lambda model, table: model.cross_validation(table, windows=2, id_col="a"), "Here: id_column=NAME."),
        (lambda model, table: model.fit(train_data=table, time_limit=60), "Here: data, the first argument."),
        (lambda model, table: foreloom.from_pretrained("small", device_map="cpu"), "Here: device='cuda'"),
        (lambda model, table: model.predict_df(table, prediction_lenght=7), "unexpected keyword argument"),
    ],
)
def test_an_option_of_another_library(model, table, call, told):
    with pytest.raises(TypeError) as caught:
        call(model, table)
    assert told in str(caught.value)


def test_an_attribute_of_another_library(model):
    with pytest.raises(AttributeError, match=r"no 'predict_quantiles'\. Here: model\.predict\(inputs"):
        model.predict_quantiles([1.0])
    with pytest.raises(AttributeError, match=r"no 'nothing_like_it'\.$"):
        _ = model.nothing_like_it
    assert copy.copy(model).folder == model.folder
    writer = copy.copy(model)
    writer.__dict__["module"] = None
    writer.__dict__.pop("_plain", None)
    with pytest.raises(AttributeError, match="NoneType"):
        _ = writer.forecaster


def test_scores_are_by_what_there_is(model, table):
    found = model.cross_validation(table, prediction_length=3, windows=60)
    with pytest.raises(ValueError, match=r"of\('item_id'\): scores are by all, series, target, step, window"):
        found.of("item_id")
    assert "do not fit into their series" in repr(found), "what is not in the scores is said with them"


def test_a_frequency_that_was_said_and_does_not_fit_is_not_asked_for_again(model, table):
    ends = table.assign(ds=pd.date_range("2021-01-31", periods=40, freq="ME"))
    with pytest.raises(ValueError, match=r"not on the steps of freq 'MS'.*look like freq='ME'") as caught:
        model.predict_df(ends, prediction_length=2, freq="MS")
    assert "Say the step with freq" not in str(caught.value)
    with pytest.raises(ValueError, match=r"no column 'timestamp'.*timestamp_column \(--timestamp-column\)"):
        model.predict_df(table.rename(columns={"ds": "day_of_sale", "y": "target"}), prediction_length=2)
