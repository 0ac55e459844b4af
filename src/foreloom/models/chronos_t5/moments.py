"""Running mean and variance of what a router sees, moved by whole global batches and not by the batch at hand.

Axes: B samples, N numbers of a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOMENTUM = 0.2
"""Share of the newest global batch, once there were five; before, all count alike."""
_LEAST_VARIANCE = 1e-12


class RunningMoments(nn.Module):
    """Standardises samples by what came before, so that no sample has a say in what becomes of its neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("num_updates", torch.zeros(()))

    def forward(self, x_BN: Tensor) -> Tensor:
        """(B, N): mean 0 and variance 1, as far as these samples are like those before."""
        return (x_BN - self.mean) * self.variance.clamp(min=_LEAST_VARIANCE).rsqrt()

    @torch.no_grad()
    def follow(self, sums: Tensor, applied: Tensor) -> None:
        """Move towards a global batch, whose `moment_sums` these are; nothing where `applied` is 0.

        What a skipped step saw may not be finite. A first sample alone has no variance, so that of before stays.
        """
        sums = torch.where(applied > 0, sums, 0.0)
        sum_N, square_N, count = sums[: len(self.mean)], sums[len(self.mean) : -1], sums[-1]
        share = (count > 0) / (self.num_updates + 1).clamp(max=1 / MOMENTUM)
        has_spread = (count > 1) | (self.num_updates > 0)
        mean_N = sum_N / count.clamp(min=1)
        self.mean.add_(share * (mean_N - self.mean))
        # Around the running mean as it is from now on.
        around_N = self.mean.to(sums.dtype)
        off_N = square_N / count.clamp(min=1) - 2 * mean_N * around_N + around_N.square()
        self.variance.add_(share * has_spread * (off_N - self.variance))
        self.num_updates.add_(share.sign())

    def reset(self) -> None:
        """What is known of nothing: mean 0, variance 1."""
        self.mean.zero_()
        self.variance.fill_(1.0)
        self.num_updates.zero_()


def moment_sums(x_BN: Tensor, keep_B: Tensor) -> Tensor:
    """(2 N + 1,), which add up over micro-batches and ranks: sums, sums of squares, number of kept samples.

    In float64: means lie tens of deviations from 0, and a variance that is the difference of two such squares would
    have lost the digits by which every cut of a batch agrees. MPS has float32 only.
    """
    precise = torch.float32 if x_BN.device.type == "mps" else torch.float64
    kept_BN = torch.where(keep_B[:, None], x_BN.detach().to(precise), 0.0)
    return torch.cat([kept_BN.sum(0), kept_BN.square().sum(0), keep_B.sum().to(precise).reshape(1)])
