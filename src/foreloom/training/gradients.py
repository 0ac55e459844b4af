"""From gradients of sums to one update: divide by the global count, clip, and skip what is not finite, in one pass.

Nothing here waits for the device: the fused optimizer divides by `grad_scale` and stands still where `found_inf` is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foreloom.distributed.parallelize import local_part
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import sum_over_ranks
from foreloom.training.stopwatch import Stopwatch


def fill_missing(parameters: Sequence[nn.Parameter]) -> None:
    """Give a zero gradient to parameters that took no part, so that an update never depends on how a batch was cut.

    (AdamW passes over parameters without a gradient; with a zero one their moments and weights decay.)
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def global_totals(
    sums: Tensor, parameters: Sequence[nn.Parameter], num_copies: int, process: Process, stopwatch: Stopwatch
) -> tuple[Tensor, Tensor]:
    """(loss, gradient norm, count) of the global batch, and what it tallied, in one small all-reduce. Collective.

    `sums` holds this rank's loss sum, its count and the entries of its tally. `parameters` hold gradients of the loss
    *sum*, already added over ranks; `num_copies` ranks hold the same ones.
    """
    norm = torch.nn.utils.get_total_norm([local_part(p.grad) for p in parameters if p.grad is not None])
    squared = (norm.to(sums.dtype) ** 2 / num_copies).reshape(1)
    with stopwatch.part("communication"):
        everything = sum_over_ranks(torch.cat([sums, squared]), process)
    loss_sum, count, squared = everything[0], everything[1], everything[-1]
    divisor = count.clamp(min=1)
    return torch.stack([loss_sum / divisor, squared.sqrt() / divisor, count]), everything[2:-1]


def update(optimizer: torch.optim.Optimizer, totals: Tensor, learning_rate: float, max_grad_norm: float) -> Tensor:
    """One step of a fused optimizer, gradients divided by the count and clipped to `max_grad_norm` (0: not clipped).

    A step whose loss or gradient is not finite, or that has no target at all, changes nothing: no weight, no moment, no
    step count. Returns 1 where the step was applied, 0 where it was skipped, on the device.
    """
    norm, count = totals[1], totals[2]
    divisor = count
    if max_grad_norm:
        divisor = count * ((norm + 1e-6) / max_grad_norm).clamp(min=1)  # the 1e-6 of torch's clip_grad_norm_
    skip = ~torch.isfinite(totals).all() | (count == 0)
    optimizer.grad_scale = divisor.float()  # type: ignore[attr-defined]
    optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    return 1.0 - skip.float()
