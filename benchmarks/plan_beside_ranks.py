"""What `foreloom plan` counts, beside what ranks really hold and send.

    python benchmarks/plan_beside_ranks.py                # two gloo ranks on the CPU, a Chronos-2 of 11M parameters

Each rank makes two steps of the trainer in float32. Beside its growth of resident memory at the peak of the second
stands the count of `run.memory`; beside the bytes of the collectives that it issued, the formula of
`plan.communication`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from foreloom import run
from foreloom.config.shipped import find_recipe
from foreloom.data.loader import StepBatch
from foreloom.distributed.mesh import mesh_shape
from foreloom.distributed.parallelize import parallelize
from foreloom.distributed.process import among_ranks, start
from foreloom.distributed.simulated import CollectiveLog
from foreloom.models import registry
from foreloom.plan.communication import KINDS, Collective, SharedExperts, collectives_of_step, count_shards
from foreloom.plan.ways import tensors_of
from foreloom.run.memory import count_memory
from foreloom.run.recipe import data_of
from foreloom.training.optimizer import build_optimizer
from foreloom.training.step import OptimizerStep
from foreloom.training.stopwatch import Stopwatch

NUM_RANKS = 2
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
"""So that memory which is let go is no longer resident."""
MODEL = ("model.d_model=384", "model.d_kv=64", "model.num_heads=6", "model.d_ff=1536", "model.num_layers=6")
RECIPE = (
    *("data.context_length=512", "data.prediction_length=64", "training.precision=fp32", "training.device=cpu"),
    *("training.batch_size=64", "model.dropout_rate=0"),
)
CASES = {
    "ddp": ("chronos2-test", *MODEL, *RECIPE, "parallel.strategy=ddp"),
    "fsdp": ("chronos2-test", *MODEL, *RECIPE, "parallel.strategy=fsdp"),
    "fsdp, recomputed": ("chronos2-test", *MODEL, *RECIPE, "parallel.strategy=fsdp",
                         "training.activation_checkpointing=true"),
    "experts over 2": ("time-moe-etth1", *RECIPE[:-2], "training.batch_size=16", "data.stride=null",
                       "training.epochs=null", "training.steps=2", "parallel.ep=2"),
}  # fmt: skip


def rank(case: str, file: Path) -> None:
    """Two steps of a rank; the first writes what it found."""
    name, *overrides = CASES[case]
    recipe = run.load(find_recipe(name), overrides, need_data=False)
    family, training = registry.get(recipe.sections["model"].family), recipe.sections["training"]
    data = data_of(recipe)
    rows = training.batch_size // NUM_RANKS
    counted = count_memory(recipe, data.full_rows, rows, device="cpu", world_size=NUM_RANKS)
    process, log = start("cpu", timeout_minutes=5), CollectiveLog(happen=True)
    torch.ones(512, 512) @ torch.ones(512, 512)  # what libraries take at first use is not the model's
    before = resident()
    model = family.build(recipe.sections["model"], data)
    family.initialize(model, 0)
    tensors, kinds = tensors_of(recipe, model), family.kinds(model)
    shape = mesh_shape(recipe.sections["parallel"], world_size=NUM_RANKS, num_parameters=0)
    parallel = parallelize(model, family.sharding, recipe.sections["parallel"], process,
                           activation_checkpointing=training.activation_checkpointing)  # fmt: skip
    optimizer = build_optimizer(recipe.sections["optimizer"], parallel.named_parameters(), kinds, max_grad_norm=1.0)
    step = OptimizerStep(parallel, family, optimizer, process, Stopwatch(process.device), None)
    batch = StepBatch(0, training.batch_size, training.batch_size, [data.full_rows(rows)])
    step.run(batch, learning_rate=1e-6)
    resident()
    with log:
        step.run(batch, learning_rate=1e-6)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    filled, experts = count_shards(tensors, shape)
    formula = collectives_of_step(filled, shape, num_micro_batches=1, compute_bytes=4, per_machine=NUM_RANKS,
                                  experts=SharedExperts(experts, counted.exchanged_bytes))  # fmt: skip
    issued = [Collective(one.kind, one.num_bytes, one.num_ranks, 0) for one in log.issued if one.num_ranks > 1]
    sent = lambda those, kind: sum(one.sent_bytes for one in those if one.kind == kind)
    found: dict[str, Any] = {
        "parameters": sum(one.rows * one.row_size for one in tensors),
        "memory": [counted.total, grown],
        "sent": {kind: [sent(formula, kind), sent(issued, kind)] for kind in KINDS},
    }
    if process.is_main:
        file.write_text(json.dumps(found))


def resident() -> int:
    """Bytes of this process in memory, now; the peak before is forgotten."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.case:
        with among_ranks():
            rank(asked.case, asked.out)
        return
    table = Table("", "what", "counted, MB", "real, MB", "counted / real")
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            file = Path(folder) / "found.json"
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={NUM_RANKS}"]
            subprocess.run(
                [*torchrun, __file__, "--case", case, "--out", str(file)], check=True, env=os.environ | RETURNED
            )
            found = json.loads(file.read_text())
            figures = {"memory": found["memory"]} | found["sent"]
            for what, (counted, real) in figures.items():
                if counted:
                    ratio = f"{counted / real:.3f}"
                    table.add_row(f"{case}, {found['parameters'] / 1e6:.1f}M", what, f"{counted / 1e6:,.2f}",
                                  f"{real / 1e6:,.2f}", ratio)  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
