"""The law of metrics: sums add, so N ranks score what one scores, however the windows were dealt out."""

import threading
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.benchmark import evaluate
from foreloom.evaluation.metrics import MetricSums, metric_sums
from foreloom.evaluation.tasks import EvaluationTask

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


class Ranks:
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
            rank=rank,
            world_size=len(self.results),
            reduce=reduce,
        )


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
    ranks = Ranks(world_size)
    for result in ranks.run(task, batch_size=10):
        one = result.tasks[0]
        assert one.scores == pytest.approx(alone.scores, rel=1e-12)
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
