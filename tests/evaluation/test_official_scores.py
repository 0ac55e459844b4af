"""Time-MoE on sliding windows scores what its official evaluation scored with the same weights."""

import json

import pytest

from foreloom.data.formats.reader import open_source
from foreloom.evaluation.ltsf import read_ltsf
from foreloom.evaluation.sliding import SlidingWindows, channels_of
from foreloom.evaluation.sliding_scores import score_windows
from foreloom.forecast import from_pretrained


@pytest.mark.parametrize("case", ["toy_csv", "general_jsonl", "ETTh1_full"])
def test_scores_are_those_of_the_official_evaluation(shared, tmp_path, monkeypatch, case):
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path))
    oracle = shared / "oracles" / "time_moe" / "eval"
    expected = json.loads((oracle / "results.json").read_text())[case]
    context, horizon = expected["context_length"], expected["prediction_length"]
    if case == "general_jsonl":
        windows = SlidingWindows(channels_of(open_source(oracle / "general.jsonl")), context, horizon, "timemoe")
    else:
        path = oracle / "toy.csv" if case == "toy_csv" else shared / "data" / "ltsf_csv" / "ETTh1.csv"
        windows = read_ltsf(path).windows(horizon, context, "timemoe")
    forecaster = from_pretrained(oracle / "model", device="cpu").forecaster
    result = score_windows(forecaster.on_scaled_data(), windows)
    assert result.num_windows == expected.get("num_windows", 7 * 2784)
    assert (result.mse, result.mae) == pytest.approx((expected["mse"], expected["mae"]), rel=1e-5)


def test_normalising_each_context_is_another_evaluation(shared):
    oracle = shared / "oracles" / "time_moe" / "eval"
    windows = read_ltsf(oracle / "toy.csv").windows(24, 64)
    forecaster = from_pretrained(oracle / "model", device="cpu").forecaster
    as_is, normalised = (score_windows(one, windows).mse for one in (forecaster.on_scaled_data(), forecaster))
    assert abs(normalised / as_is - 1) > 1e-3
