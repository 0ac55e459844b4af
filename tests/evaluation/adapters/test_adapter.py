"""A function as a forecaster: what it gets, what it may answer, and that it is scored."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foreloom.data.forecast_input import ForecastInput
from foreloom.evaluation.adapters.adapter import FunctionForecaster
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.tasks import EvaluationTask


def an_input(length: int, num_targets: int = 1) -> ForecastInput:
    past = np.arange(num_targets * length, dtype=np.float32).reshape(num_targets, length)
    return ForecastInput(past, np.full((num_targets, 3), np.nan, np.float32), num_targets)


def last_value(inputs, prediction_length, quantile_levels):
    return [np.repeat(one.context_RC[: one.num_targets, -1:], prediction_length, axis=1) for one in inputs]


def test_batches_contexts_and_single_values():
    seen = []

    def predict(inputs, prediction_length, quantile_levels):
        seen.append([one.context_RC.shape for one in inputs])
        return last_value(inputs, prediction_length, quantile_levels)

    forecaster = FunctionForecaster(predict, context_length=5)
    asked = [an_input(9), an_input(4), an_input(7, num_targets=3)]
    answers = forecaster.predict_quantiles(asked, 3, [0.1, 0.9], batch_size=2)
    assert seen == [[(1, 5), (1, 4)], [(3, 5)]], "at most two rows together, the newest five steps"
    assert [answer.shape for answer in answers] == [(1, 3, 2), (1, 3, 2), (3, 3, 2)]
    assert answers[2][:, 0, 1].tolist() == [6, 13, 20]


@pytest.mark.parametrize(
    ("predict", "complaint"),
    [
        (lambda inputs, *_: [np.zeros((1, 2, 2))] * len(inputs), r"shape \(1, 2, 2\).*are \(1, 3, 2\)"),
        (lambda inputs, *_: [], "gave 0 forecasts for 1 inputs"),
    ],
)
def test_answers_that_do_not_fit_are_refused(predict, complaint):
    with pytest.raises(ValueError, match=f"FunctionForecaster gave .*{complaint}|FunctionForecaster {complaint}"):
        FunctionForecaster(predict).predict_quantiles([an_input(4)], 3, [0.1, 0.9])


def test_what_it_cannot_do_is_refused():
    forecaster = FunctionForecaster(last_value, context_length=5)
    with pytest.raises(ValueError, match="context_length is 6; FunctionForecaster takes 5 steps"):
        forecaster.predict_quantiles([an_input(9)], 3, [0.5], context_length=6)
    with pytest.raises(ValueError, match="cross_learning has no effect"):
        forecaster.predict_quantiles([an_input(9)], 3, [0.5], cross_learning=True)
    with pytest.raises(ValueError, match="no hidden states"):
        forecaster.embed([an_input(9)])


def test_it_is_scored_as_any_other(tmp_path):
    data = tmp_path / "a.jsonl"
    data.write_text(json.dumps({"target": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}) + "\n")
    task = EvaluationTask(name="a", path=data, prediction_length=2)
    (scored,) = evaluate(FunctionForecaster(last_value), [task]).tasks
    assert scored.scores["MASE"] == pytest.approx(1.5)
    assert scored.num_fallbacks == 0
