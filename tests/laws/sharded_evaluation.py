"""`python sharded_evaluation.py DATA OUT`: scores a small Chronos-2, sharded over the ranks, into OUT/<rank>.json."""

import json
import sys
from pathlib import Path

import torch

from foreloom.distributed.mesh import ParallelConfig
from foreloom.distributed.parallelize import parallelize
from foreloom.distributed.process import start, stop
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.ranks import Ranks
from foreloom.evaluation.tasks import EvaluationTask
from foreloom.models.family import WindowLengths
from foreloom.models.registry import get


def main(data: str, out: str) -> None:
    torch.set_num_threads(1)
    process = start("cpu", timeout_minutes=0.5)
    family = get("chronos2")
    config = family.config(size="test", d_model=32, d_kv=8, d_ff=64, num_heads=4, num_layers=2)
    model = family.build(config, WindowLengths(32, 16))
    family.initialize(model, 3)
    if process.world_size > 1:
        parallelize(model, family.sharding, ParallelConfig(strategy="fsdp"), process)
    tasks = [
        EvaluationTask(name="short", path=data, prediction_length=4, num_rolls=2, season_length=4),
        EvaluationTask(name="unrolled", path=data, prediction_length=20, season_length=4, variates="joint"),
    ]
    result = evaluate(family.forecaster(model), tasks, batch_size=7, ranks=Ranks.of(process))
    scores = {task.name: task.scores | {"median": task.examples[1].name} for task in result.tasks}
    Path(out, f"{process.rank}.json").write_text(json.dumps(scores))
    stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
