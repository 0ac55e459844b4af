"""Random values drawn by the parameter's name, so that they depend on neither world size nor construction order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Scheme = Literal["xavier", "kaiming", "gpt", "depth_scaled"]
"""How large the values of matrices are in the beginning: see `std_of`."""
GPT_STD = 0.02
"""Of every matrix of GPT-2, tables included."""


def std_of(scheme: Scheme, fan_in: int, fan_out: int, *, ends_branch: bool, num_layers: int) -> float:
    """Standard deviation of a matrix of so many inputs and outputs.

    xavier: sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio 2010); kaiming: sqrt(2 / fan_in) (He et al. 2015); gpt: 0.02;
    depth_scaled: 0.02, and where the matrix `ends_branch` of the residual stream 0.02 / sqrt(2 num_layers), as such a
    stream of L layers has 2 L branches (Radford et al. 2019).
    """
    match scheme:
        case "xavier":
            return math.sqrt(2 / (fan_in + fan_out))
        case "kaiming":
            return math.sqrt(2 / fan_in)
        case "gpt":
            return GPT_STD
        case "depth_scaled":
            return GPT_STD / math.sqrt(2 * num_layers) if ends_branch else GPT_STD


def normal_by_name(parameter: Tensor, name: str, seed: int, std: float) -> None:
    """Fill with N(0, std^2), drawn on the CPU by a generator seeded with (seed, name)."""
    _fill(parameter, name, seed, lambda values, generator: values.normal_(0.0, std, generator=generator))


def uniform_by_name(parameter: Tensor, name: str, seed: int, std: float) -> None:
    """`normal_by_name`, but uniform between -sqrt(3) std and sqrt(3) std."""
    bound = math.sqrt(3) * std
    _fill(parameter, name, seed, lambda values, generator: values.uniform_(-bound, bound, generator=generator))


def orthogonal_by_name(parameter: Tensor, name: str, seed: int, *, num_blocks: int) -> None:
    """Fill with square orthogonal matrices (Saxe et al. 2014), one below the other."""
    draw = lambda values, generator: torch.cat(
        [torch.nn.init.orthogonal_(block, generator=generator) for block in values.chunk(num_blocks)]
    )
    _fill(parameter, name, seed, draw)


def _fill(parameter: Tensor, name: str, seed: int, draw: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    values = draw(torch.empty(parameter.shape, dtype=torch.float32), generator)
    with torch.no_grad():
        parameter.copy_(values)
