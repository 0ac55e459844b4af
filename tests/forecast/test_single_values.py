"""The door for models that forecast one value a step: 0.5 by default, other levels refused, tasks scored anyway."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from naive_model import naive_model

from foreloom.evaluation.baselines import Naive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.forecast import Model


@pytest.fixture
def model():
    return Model(SimpleNamespace(forecaster=lambda module: Naive()), torch.nn.Linear(1, 1))


def test_the_levels_nobody_asked_for(model):
    past = np.arange(10.0)
    assert [one.shape for one in model.predict(past, 3)] == [(1, 3, 1)]
    assert [one.shape for one in naive_model().predict(past, 3)] == [(1, 3, 3)]
    table = pd.DataFrame({"timestamp": pd.date_range("2024", periods=10, freq="D"), "target": past})
    answer = model.predict_df(table, prediction_length=3)
    assert list(answer.columns) == ["item_id", "timestamp", "target_name", "predictions", "0.5"]
    assert answer["0.5"].tolist() == answer["predictions"].tolist() == [9.0] * 3
    assert {"0.1", "0.5", "0.9"} <= set(naive_model().predict_df(table, prediction_length=3).columns)


def test_quantiles_are_refused_by_name(model):
    for levels in ([0.1, 0.5, 0.9], [0.4]):
        with pytest.raises(ValueError, match="forecasts one value a step, not quantiles; ask for 0.5"):
            model.predict(np.arange(10.0), 3, levels)
    np.testing.assert_array_equal(model.predict(np.arange(10.0), 3, [0.5])[0][0, :, 0], [9.0] * 3)
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        model.predict(np.arange(10.0), 3, [])


def test_wql_of_single_values_is_the_absolute_error_over_the_labels(model, tmp_path):
    pq.write_table(pa.table({"item_id": ["a"], "target": [[1.0, 2.0, 4.0, 6.0, 3.0]]}), tmp_path / "data.parquet")
    task = EvaluationTask(name="t", path=tmp_path, prediction_length=2)
    scores = evaluate(model.forecaster, [task]).tasks[0].scores
    assert scores["WQL"] == pytest.approx((2 + 1) / 9)
    assert scores["coverage_80"] == 0
