"""Models with experts shared between ranks, beside the same on one device: `python shared_experts.py`, a rank.

Loads are uneven: all is sent to the first expert, nothing to the last.
"""

from __future__ import annotations

import copy
from itertools import product
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from foreloom.checkpoint.export import whole_state_dict
from foreloom.distributed.mesh import ParallelConfig
from foreloom.distributed.parallelize import ParallelModel, parallelize
from foreloom.distributed.process import Process, among_ranks, start
from foreloom.distributed.reduce import sum_over_ranks
from foreloom.distributed.simulated import Issued, leave_share
from foreloom.models.chronos_t5.experts import SampleExperts
from foreloom.models.common.moe import MixtureOfExperts
from foreloom.models.family import WindowLengths
from foreloom.models.registry import get
from foreloom.training.optimizer import fill_missing
from foreloom.training.step import global_totals
from foreloom.training.stopwatch import Stopwatch

ROWS, STEPS = 3, 12
SECTIONS = {
    "time_moe": {"size": "test", "hidden_size": 32, "intermediate_size": 64, "horizon_lengths": (1, 4),
                 "balance": "bias"},
    "chronos_t5": {"size": "tiny", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "n_tokens": 64,
                   "dropout_rate": 0.0, "use_moe": True, "num_experts": 4, "router_choice": "biased",
                   "load_balancing_weight": 0.0},
}  # fmt: skip
CHOICES = {"time_moe": STEPS, "chronos_t5": 1}
"""Of experts, a row."""


def model(name: str) -> nn.Module:
    built = get(name).build(get(name).config(**SECTIONS[name]), WindowLengths(STEPS, 1))
    get(name).initialize(built, 3)
    for module in built.modules():
        if isinstance(module, MixtureOfExperts | SampleExperts):
            assert module.expert_bias is not None
            module.expert_bias[0], module.expert_bias[-1] = 9.0, -9.0
    return built


def batch(name: str, first_row: int, num_rows: int) -> dict[str, Tensor]:
    values = torch.randn(16, STEPS + 1, generator=torch.Generator().manual_seed(0))[first_row : first_row + num_rows]
    if name == "chronos_t5":
        values = (20 * values.abs()).long().clamp(max=61) + 2
    return {"input_ids": values[:, :-1], "labels": values[:, 1:]}


def check(name: str, parallel: ParallelModel, alone: nn.Module, process: Process) -> None:
    """Loss, norm and gradients of two micro-batches on every rank are those of all their rows on one device."""
    whole = alone(**batch(name, 0, ROWS * process.world_size))
    whole.objective.sum.backward()
    sums = torch.zeros(2, dtype=torch.float64)
    loads = torch.zeros_like(whole.tally["expert_load"])
    for first, num_rows, is_last in ((0, 1, False), (1, ROWS - 1, True)):
        with parallel.micro_batch(is_last=is_last):
            output = parallel.module(**batch(name, process.rank * ROWS + first, num_rows))
            output.objective.sum.backward()
        sums += torch.stack([output.objective.sum.detach(), output.objective.count]).double()
        loads += output.tally["expert_load"]
    parameters = [p for p in parallel.model.parameters() if p.requires_grad]
    fill_missing(parameters)
    totals, _ = global_totals(sums, parameters, process, Stopwatch(process.device))
    torch.testing.assert_close(totals[0].float(), whole.objective.mean.detach(), rtol=1e-5, atol=0)
    theirs = dict(alone.named_parameters())
    norm = torch.nn.utils.get_total_norm([p.grad for p in theirs.values() if p.grad is not None])
    torch.testing.assert_close(totals[1].float(), norm / whole.objective.count, rtol=1e-5, atol=0)
    for of, parameter in parallel.named_parameters():
        grad = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
        expected = theirs[of].grad
        torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()), msg=of)
        if "experts." in of:
            assert not grad[-1].any() and grad[0].any()
    load_LE = sum_over_ranks(loads, process)
    assert torch.equal(load_LE, whole.tally["expert_load"])
    assert not load_LE[:, -1].any() and (load_LE[:, 0] == ROWS * process.world_size * CHOICES[name]).all()


def check_bytes(name: str, parallel: ParallelModel, alone: nn.Module, ep: int, process: Process) -> None:
    """What ranks really send one another for a micro-batch is what is counted with ranks that are not there."""
    rows, really, issued = batch(name, process.rank, 2), [], list[Issued]()
    send = dist.all_to_all_single
    noted = lambda y, x, *sizes, **group: (really.append(x.nbytes), send(y, x, *sizes, **group))
    with mock.patch.object(dist, "all_to_all_single", noted), parallel.micro_batch(is_last=True):
        parallel.module(**rows).objective.sum.backward()
    counted = copy.deepcopy(alone)
    leave_share(counted, get(name).sharding, ep, issued)
    counted(**rows).objective.sum.backward()
    theirs = torch.tensor([sum(really), sum(one.num_bytes for one in issued)])
    real, told = sum_over_ranks(theirs, process).tolist()  # there and back each rank sends another number
    assert real == told > 0 and len(really) == len(issued)


def main(process: Process) -> None:
    settings = [("ddp", 0, 2), ("fsdp", 0, 2), ("fsdp", 0, 4), ("fsdp", 2, 4), ("ddp", 0, 4)]
    for name, (strategy, replicate, ep) in product(SECTIONS, settings[: 2 if process.world_size == 2 else None]):
        alone, sharding = model(name), get(name).sharding
        config = ParallelConfig(strategy=strategy, dp_replicate=replicate, ep=ep)
        recomputes = ep == process.world_size
        parallel = parallelize(copy.deepcopy(alone), sharding, config, process, activation_checkpointing=recomputes)
        held = [p for of, p in parallel.named_parameters() if "experts." in of]
        assert held and all(isinstance(p, DTensor) and len(p.to_local()) == len(p) // ep for p in held)
        check(name, parallel, alone, process)
        saved, own = whole_state_dict(parallel.module), alone.state_dict()
        assert saved.keys() == (own.keys() if process.is_main else set())
        assert all(torch.equal(saved[of], own[of]) for of in saved)
        if not recomputes:
            check_bytes(name, parallel, alone, ep, process)
        # Ranks that forecast differently much do not wait for each other, but where they share all of the model.
        num_forecasts = 1 if strategy == "fsdp" else 1 + process.rank
        rows = batch(name, process.rank, num_forecasts)
        with torch.no_grad(), parallel.answering(process.device):
            for _ in range(num_forecasts):
                torch.testing.assert_close(parallel.model(**rows).logits, alone(**rows).logits)


if __name__ == "__main__":
    with among_ranks():
        main(start("cpu", timeout_minutes=1))
