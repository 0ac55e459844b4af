"""The law of metrics: sums add, so N ranks score what one scores, however the windows were dealt out."""

import json
import os
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sharded_evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

from foreloom.distributed.network import free_port
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.metrics import MetricSums, metric_sums
from foreloom.evaluation.ranks import Ranks
from foreloom.evaluation.tasks import EvaluationTask
from forked import Rank

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def windows(num, seed=0):
    rng = np.random.default_rng(seed)
    label_SH = rng.normal(5, 3, (num, 4))
    label_SH[rng.random(label_SH.shape) < 0.2] = np.nan
    scale_S = np.where(rng.random(num) < 0.2, 0, rng.random(num) + 0.1)
    return np.sort(rng.normal(5, 3, (num, 4, len(LEVELS)))), label_SH, scale_S, [str(i) for i in range(num)]


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 23), max_size=6), seed=st.integers(0, 9))
def test_any_partition_gives_the_same_scores(cuts, seed):
    forecast, label, scale, names = windows(23, seed)
    whole = metric_sums(forecast, label, scale, LEVELS, names)
    total = MetricSums.zero(LEVELS)
    edges = [0, *sorted(cuts), 23]
    for a, b in pairwise(edges):
        total += metric_sums(forecast[a:b], label[a:b], scale[a:b], LEVELS, names[a:b])
    assert total.scores() == pytest.approx(whole.scores(), rel=1e-12, nan_ok=True)
    np.testing.assert_array_equal(whole.with_vector(whole.vector()).vector(), whole.vector())
    assert whole.with_vector(whole.vector()).scores() == whole.scores()


class Threads:
    """Ranks as threads, their all-reduce a barrier and a sum."""

    def __init__(self, world_size):
        self.barrier = threading.Barrier(world_size, timeout=60)
        self.vectors = [None] * world_size
        self.calls = [[] for _ in range(world_size)]
        self.results = [None] * world_size

    def run(self, task, batch_size):
        threads = [threading.Thread(target=self._rank, args=(r, task, batch_size)) for r in range(len(self.results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.results

    def _rank(self, rank, task, batch_size):
        def reduce(vector):
            self.vectors[rank] = vector
            self.barrier.wait()
            return np.sum(self.vectors, axis=0)

        self.results[rank] = evaluate(
            CountingNaive(self.calls[rank]),
            [task],
            batch_size=batch_size,
            ranks=Ranks(rank, len(self.results), reduce),
        )


class BrokenOnOneWindow(SeasonalNaive):
    """NaN for the series that begins with 7."""

    def point_forecast(self, filled_RL, prediction_length):
        return super().point_forecast(np.where(filled_RL[:, :1] == 7, np.nan, filled_RL), prediction_length)


def test_a_broken_forecast_on_one_rank_stops_all(tmp_path):
    target = [[float(v), 1.0, 2.0, 3.0, 4.0] for v in range(9)]
    pq.write_table(pa.table({"item_id": [str(i) for i in range(9)], "target": target}), tmp_path / "data.parquet")
    task = EvaluationTask(name="t", path=tmp_path, prediction_length=1)
    barrier, vectors, raised = threading.Barrier(2, timeout=60), [None] * 2, [None] * 2

    def run(rank):
        def reduce(vector):
            vectors[rank] = vector
            barrier.wait()
            return np.sum(vectors, axis=0)

        with pytest.raises(ValueError, match="not finite") as caught:
            evaluate(BrokenOnOneWindow(), [task], batch_size=2, ranks=Ranks(rank, 2, reduce))
        raised[rank] = str(caught.value)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("series '7'" in message for message in raised) == [False, True]


class CountingNaive:
    """A seasonal naive that notes its forwards and does not ask for a season."""

    quantile_levels = (0.5,)
    context_length = 20
    prediction_length = 100

    def __init__(self, calls):
        self.calls = calls

    def predict_quantiles(self, inputs, prediction_length, quantile_levels, **options):
        self.calls.append(prediction_length)
        return SeasonalNaive(4).predict_quantiles(inputs, prediction_length, quantile_levels, **options)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_one_rank_and_many_give_the_same_result(tmp_path, world_size):
    rng = np.random.default_rng(1)
    target = [rng.normal(size=(3, length)).astype(np.float32).tolist() for length in rng.integers(12, 60, 17)]
    pq.write_table(pa.table({"item_id": [str(i) for i in range(17)], "target": target}), tmp_path / "data.parquet")
    task = EvaluationTask(name="t", path=tmp_path, prediction_length=3, num_rolls=2, season_length=4)
    alone = evaluate(CountingNaive([]), [task], batch_size=10).tasks[0]
    ranks = Threads(world_size)
    for result in ranks.run(task, batch_size=10):
        one = result.tasks[0]
        assert one.scores == alone.scores, "batches are added in one order, so even the last bit is the same"
        assert one.sums.num_windows == 17 * 3 * 2
        for mine, other in zip(one.examples, alone.examples, strict=True):
            assert (mine.kind, mine.name, mine.cut) == (other.kind, other.name, other.cut)
            np.testing.assert_array_equal(mine.forecast_VHQ, other.forecast_VHQ)
    assert len({tuple(calls) for calls in ranks.calls}) == 1, "ranks must make the same forwards, or FSDP hangs"
    assert len(ranks.calls[0]) < len(alone_calls(task))


def alone_calls(task):
    calls = []
    evaluate(CountingNaive(calls), [task], batch_size=10)
    return calls


def sharded(world_size, data, out):
    """Scores by rank of `sharded_evaluation.py` on so many gloo ranks."""
    out.mkdir()
    script = Path(__file__).with_name("sharded_evaluation.py")
    its = os.environ | {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    numbers = map(str, range(world_size))
    ranks = [Rank(script, [str(data), str(out)], its | {"RANK": r, "LOCAL_RANK": r}) for r in numbers]
    try:
        assert [rank.wait(240) for rank in ranks] == [0] * world_size, [rank.output() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [json.loads((out / f"{r}.json").read_text()) for r in range(world_size)]


def test_a_model_sharded_over_two_ranks_scores_as_on_one(tmp_path):
    rng = np.random.default_rng(2)
    target = [(np.sin(np.arange(n)) + rng.normal(size=(2, n))).tolist() for n in rng.integers(30, 80, 9)]
    pq.write_table(pa.table({"item_id": [str(i) for i in range(9)], "target": target}), tmp_path / "data.parquet")
    sharded_evaluation.main(str(tmp_path / "data.parquet"), str(tmp_path))
    alone = json.loads((tmp_path / "0.json").read_text())
    for rank in sharded(2, tmp_path / "data.parquet", tmp_path / "two"):
        for task, scores in alone.items():
            assert rank[task].pop("median") == scores["median"]
            expected = {name: value for name, value in scores.items() if name != "median"}
            assert rank[task] == pytest.approx(expected, rel=1e-6), task
