"""Time-MoE on sliding windows scores what its official evaluation scored with the same weights."""

import json

import pytest

from foreloom.data.formats.reader import open_source
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.ltsf import read_ltsf
from foreloom.evaluation.sliding import raw_task
from foreloom.forecast import from_pretrained


@pytest.mark.parametrize("case", ["toy_csv", "general_jsonl", "ETTh1_full"])
def test_scores_are_those_of_the_official_evaluation(shared, tmp_path, monkeypatch, case):
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path))
    oracle = shared / "oracles" / "time_moe" / "eval"
    expected = json.loads((oracle / "results.json").read_text())[case]
    context, horizon = expected["context_length"], expected["prediction_length"]
    if case == "general_jsonl":
        task = raw_task(open_source(oracle / "general.jsonl"), horizon, context, "timemoe")
    else:
        path = oracle / "toy.csv" if case == "toy_csv" else shared / "data" / "ltsf_csv" / "ETTh1.csv"
        task = read_ltsf(path).task(horizon, context, "timemoe")
    forecaster = from_pretrained(oracle / "model", device="cpu").forecaster
    (result,) = evaluate(forecaster.on_scaled_data(), [task]).tasks
    assert result.sums.num_windows == expected.get("num_windows", 7 * 2784)
    assert (result.scores["MSE"], result.scores["MAE"]) == pytest.approx((expected["mse"], expected["mae"]), rel=1e-5)


def test_normalising_each_context_is_another_evaluation(shared):
    oracle = shared / "oracles" / "time_moe" / "eval"
    task = read_ltsf(oracle / "toy.csv").task(24, 64)
    forecaster = from_pretrained(oracle / "model", device="cpu").forecaster
    as_is, normalised = (
        evaluate(one, [task]).tasks[0].scores["MSE"] for one in (forecaster.on_scaled_data(), forecaster)
    )
    assert abs(normalised / as_is - 1) > 1e-3
