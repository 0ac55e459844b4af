"""Ten steps of the official trainer, repeated with the pieces of ours."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from time_moe_parity import arrays, load, oracles

from foreloom.distributed.process import Process
from foreloom.models.common.count import by_shape
from foreloom.models.time_moe.checkpoint import official_views
from foreloom.training.optimizer import OptimizerConfig, build_optimizer
from foreloom.training.step import global_totals
from foreloom.training.stopwatch import Stopwatch


def test_trainer_trace(shared):
    folder = oracles(shared) / "trainer"
    trace, batches = json.loads((folder / "trace.json").read_text()), arrays(folder / "batches.npz")
    model = load(folder / "init").train()
    config = OptimizerConfig(
        learning_rate=trace["lr"],
        weight_decay=trace["weight_decay"],
        weight_decay_on="all_but_biases",
        betas=tuple(trace["betas"]),
        epsilon=trace["eps"],
    )
    optimizer = build_optimizer(config, model.named_parameters(), by_shape(model), max_grad_norm=trace["max_grad_norm"])
    parameters = list(model.parameters())
    process = Process(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))
    # The log gives the rate after a step; the first step, at the foot of the warm-up, has none.
    rates = [0.0, *(entry["learning_rate"] for entry in trace["log_history"] if "learning_rate" in entry)]

    for step in range(trace["steps"]):
        optimizer.zero_grad()
        sums = torch.zeros(2, dtype=torch.float64)
        for i in range(step * trace["grad_accum"], (step + 1) * trace["grad_accum"]):
            arguments = {key: torch.from_numpy(batches[f"{key}_{i}"]) for key in ("input_ids", "labels", "loss_masks")}
            objective = model(**arguments).objective
            assert objective.sum.item() == pytest.approx(trace["micro_losses"][i], abs=1e-5)
            objective.sum.backward()
            sums += torch.stack([objective.sum.detach().double(), objective.count.double()])
        totals, _ = global_totals(sums, parameters, process, Stopwatch(process.device))
        assert totals[1].item() == pytest.approx(trace["log_history"][step]["grad_norm"], rel=1e-4)
        assert optimizer.update(totals, rates[step]).item() == 1
    ours, theirs = official_views(model.state_dict()), load_file(folder / "final" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, rtol=0, atol=5e-5, msg=lambda m, k=key: f"{k}: {m}")
