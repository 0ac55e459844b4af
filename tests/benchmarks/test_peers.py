"""benchmarks/peers.py: the same few series for every model, and no task is left out of the means in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom.data.stream.selection import fixed_choice
from foreloom.evaluation.adapters.adapter import FunctionForecaster
from foreloom.evaluation.baselines import Fallbacks, Naive, SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.skill import BASELINE
from foreloom.evaluation.tasks import EvaluationTask

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import peers

    return peers


@pytest.fixture
def task(tmp_path):
    """Two files: 20 series of months, of which one is too short and one is to be left out, and 20 without frequency."""
    paths = []
    rng = np.random.default_rng(0)
    for name, freq in (("months", "MS"), ("none", None)):
        path = tmp_path / f"{name}.parquet"
        target = [list(rng.normal(10, 1, 2 if n == 3 else 30)) for n in range(20)]
        ids = [f"{name}{n}" for n in range(20)]
        pq.write_table(pa.table({"item_id": ids, "freq": pa.array([freq] * 20, pa.string()), "target": target}), path)
        paths.append(path)
    return EvaluationTask(
        name="t",
        path=tuple(paths),
        prediction_length=4,
        num_rolls=2,
        season_length=12,
        freq="MS",
        leave_out=("months7",),
    )


def test_the_series_are_chosen_by_a_hash_from_those_with_a_window(peers, task):
    few = peers.some_series(task, 5)
    (source,) = few.open()
    with_window = [n for n in range(20) if n not in (3, 7)]
    expected = np.array(with_window)[fixed_choice(np.arange(18), 5)]
    assert [source.read(n).item_id.rpartition("/")[2] for n in range(len(source))] == [f"months{n}" for n in expected]
    (result,) = evaluate(SeasonalNaive(), [few]).tasks
    assert (result.num_series, result.sums.num_windows) == (5, 10)


def test_all_series_score_as_the_whole_task(peers, task):
    whole, all_of_it = evaluate(Naive(), [task]).tasks[0], evaluate(Naive(), [peers.some_series(task, 99)]).tasks[0]
    assert all_of_it.scores == whole.scores
    assert all_of_it.num_series == 18


def test_a_task_on_which_a_peer_fails_counts_for_none_and_is_named(peers, task, capsys):
    def fail(inputs, prediction_length, quantile_levels):
        raise RuntimeError("too few steps")

    few = peers.some_series(task, 5)
    flat = peers.ask(FunctionForecaster(lambda i, h, q: [np.full((1, h), 10.0) for _ in i]), few)
    naive, failed = peers.ask(SeasonalNaive(), few), peers.ask(FunctionForecaster(fail), few)
    assert "too few steps" in failed.trouble
    found = {"good": {BASELINE: naive, "peer": flat}, "bad": {BASELINE: naive, "peer": failed}}
    peers.report(found, [BASELINE, "peer"])
    told = capsys.readouterr().out
    ratios = [flat.scores[metric] / naive.scores[metric] for metric in ("WQL", "MASE")]
    assert "| 1 tasks |" in told
    assert f"| peer | {ratios[0]:.3f} | {ratios[1]:.3f} | 1 and 1 |" in told
    assert "Left out for all: bad (peer: RuntimeError: too few steps" in told


def test_what_seasonal_naive_forecast_for_a_peer_is_no_score_of_it(peers, task):
    class Falling(Naive):
        def __init__(self):
            self.fallbacks = Fallbacks()

        def predict_quantiles(self, inputs, *args, **options):
            self.fallbacks.num += 1
            return super().predict_quantiles(inputs, *args, **options)

    assert peers.ask(Falling(), peers.some_series(task, 5)).trouble == "failed on 1 of 10 windows"


def test_constant_series_have_no_mase_and_no_place_in_the_means(peers, tmp_path):
    path = tmp_path / "flat.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "target": [[1.0] * 20]}), path)
    flat = EvaluationTask(name="flat", path=path, prediction_length=4)
    assert peers.ask(Naive(), peers.some_series(flat, 5)).trouble == "no WQL above 0, no MASE above 0"
