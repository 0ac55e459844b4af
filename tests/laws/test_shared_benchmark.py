"""Law: the benchmark in training scores the same on every number of ranks, sharded or not, and never hangs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom.evaluation.benchmark import read_records
from toy_run import launch, train_here


def write_ragged(path: Path) -> str:
    """Series of 2 targets and very different lengths; some begin with missing values, so rows are shorter still."""
    rng = np.random.default_rng(4)
    targets = []
    for n in (13, 14, 16, 18, 30, 41, 60, 75, 90):
        target = 1000 + 300 * np.sin(np.arange(n) / 3) + 50 * rng.normal(size=(2, n))
        target[1, : n // 3] = np.nan
        targets.append(target.tolist())
    pq.write_table(pa.table({"item_id": [str(i) for i in range(len(targets))], "target": targets}), path)
    return str(path)


def test_two_ranks_score_as_one(tmp_path: Path) -> None:
    data = write_ragged(tmp_path / "ragged.parquet")
    # Two rows of 32 steps fit into one forward, three do not: the ranks' batches of a turn take unequal numbers.
    benchmark = {"benchmark": {"steps": 2, "data": data, "batch_size": 6, "most_steps": 70}}
    time_moe, chronos2, chronos_bolt = (
        {"family": family, "steps": 3} | benchmark for family in ("time_moe", "chronos2", "chronos_bolt")
    )
    half = chronos2 | {"precision": "bf16"}
    shared = {
        "time_moe-fsdp": time_moe | {"strategy": "fsdp"},
        "chronos2-ddp": chronos2 | {"strategy": "ddp"},
        "chronos_bolt-fsdp": chronos_bolt | {"strategy": "fsdp"},
        "half-fsdp": half | {"strategy": "fsdp"},
    }
    launch(2, [settings | {"run_dir": tmp_path / name} for name, settings in shared.items()])
    for family, settings in (
        ("time_moe", time_moe),
        ("chronos2", chronos2),
        ("chronos_bolt", chronos_bolt),
        ("half", chronos2 | {"precision": "bf16"}),
    ):
        train_here(tmp_path / family, **settings)
    for name in shared:
        alone, together = (read_records(tmp_path / run) for run in (name.partition("-")[0], name))
        assert [record.step for record in alone] == [record.step for record in together] == [2, 3]
        # Sharded parameters come in bf16 where that is the precision, which keeps 8 bits.
        near = {"rel": 3e-2 if name == "half-fsdp" else 1e-5}
        for one, two in zip(alone, together, strict=True):
            assert two.scores == pytest.approx(one.scores, **near), name
            assert two.tasks.keys() == one.tasks.keys() == {"joint", "split"}
