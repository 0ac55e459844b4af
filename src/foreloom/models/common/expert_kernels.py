"""How tokens reach their experts and come back: route once, sort once, then each expert works on a contiguous slice.

Axes: N tokens, D model width, E experts, K experts a token, F width of an expert (G = 2F: gate and up), M = N*K pairs
(token, expert) sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from foreloom.distributed.sharding import Exchange
from foreloom.models.common.cpu import is_for_cuda

_ALIGNMENT = 8
"""bf16 elements of 16 bytes: what the grouped CUDA kernel asks of the widths."""


class Order(NamedTuple):
    """The pairs sorted by expert, those of one expert in the order of their tokens."""

    expert_M: Tensor
    token_M: Tensor
    """Where the token of a pair is among the N."""
    pair_M: Tensor
    """Where the pair is in (N, K) flattened."""
    position_NK: Tensor
    """Where the pair has gone, the inverse of `pair_M`."""


def run_experts(x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor) -> Tensor:
    """sum_k weight[n, k] * down_e(silu(gate_e x[n]) * up_e x[n]) with e = expert[n, k] -> (N, D).

    The result has the dtype of a matrix product: that of autocast where it is on. The gradients of both parameters
    cover all experts, 0 for those without tokens.
    """
    dtype = _product_dtype(x_ND)
    x_ND, weight_NK, gate_up_EGD, down_EDF = (y.to(dtype) for y in (x_ND, weight_NK, gate_up_EGD, down_EDF))
    order = order_by_expert(expert_NK)
    run = _run_grouped if _has_grouped_kernel(x_ND, down_EDF) else _run_slices
    return run(x_ND, weight_NK, gate_up_EGD, down_EDF, order)


@torch.compiler.disable  # the sizes of the messages are data
def run_shared(
    run: Callable[..., Tensor],
    x_ND: Tensor,
    expert_NK: Tensor,
    weight_NK: Tensor,
    stacks: Sequence[Tensor],
    exchange: Exchange,
) -> Tensor:
    """`run(x, expert, weight, *stacks)` where ranks share the experts: the stacks are of those held here; `expert_NK`
    counts all. Collective, backward too. Tokens and results may have more axes than one."""
    order = order_by_expert(expert_NK)
    x_MD = _Dispatch.apply(x_ND.to(_product_dtype(x_ND)), order.token_M, order.position_NK)
    route = exchange.route(order.expert_M)
    x_RD, weight_R1 = route.there(x_MD), route.there(weight_NK.flatten()[order.pair_M, None])
    y_RD = run(x_RD, route.expert_R[:, None], weight_R1, *stacks)
    return _Combine.apply(route.back(y_RD), order.token_M, order.position_NK)


def _product_dtype(x: Tensor) -> torch.dtype:
    """Of matrix products."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def order_by_expert(expert_NK: Tensor) -> Order:
    """Nothing waits for the device."""
    expert_M, pair_M = expert_NK.flatten().sort(stable=True)
    places_M = torch.arange(len(pair_M), device=pair_M.device)
    position_NK = torch.empty_like(pair_M).scatter_(0, pair_M, places_M).view_as(expert_NK)
    return Order(expert_M, pair_M // expert_NK.shape[1], pair_M, position_NK)


def _has_grouped_kernel(x_ND: Tensor, down_EDF: Tensor) -> bool:
    aligned = down_EDF.shape[1] % _ALIGNMENT == 0 and down_EDF.shape[2] % _ALIGNMENT == 0
    return is_for_cuda(x_ND) and x_ND.dtype == torch.bfloat16 and aligned


def _run_grouped(x_ND: Tensor, weight_NK: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor, order: Order) -> Tensor:
    """One kernel for all experts, which reads the slices' ends on the device."""
    experts_E = torch.arange(len(down_EDF), device=x_ND.device)
    end_E = torch.searchsorted(order.expert_M, experts_E, right=True, out_int32=True)
    x_MD = _Dispatch.apply(x_ND, order.token_M, order.position_NK)
    gate_MF, up_MF = F.grouped_mm(x_MD, gate_up_EGD.transpose(1, 2), offs=end_E).chunk(2, dim=-1)
    weight_M1 = weight_NK.flatten()[order.pair_M, None]
    y_MD = F.grouped_mm(F.silu(gate_MF) * up_MF * weight_M1, down_EDF.transpose(1, 2), offs=end_E)
    return _Combine.apply(y_MD, order.token_M, order.position_NK)


class _Dispatch(torch.autograd.Function):
    """x[token], and the sum over a token's pairs back: gathers both ways, so no atomics and the same bits each time."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, token_M: Tensor, position_NK: Tensor) -> Tensor:
        ctx.save_for_backward(token_M, position_NK)
        return x_ND.index_select(0, token_M)

    @staticmethod
    def backward(ctx: Any, gradient_MD: Tensor) -> tuple[Tensor, None, None]:
        return _Combine.apply(gradient_MD, *ctx.saved_tensors), None, None


class _Combine(torch.autograd.Function):
    """The sum over each token's pairs, and a copy of the gradient to each of them back."""

    @staticmethod
    def forward(ctx: Any, y_MD: Tensor, token_M: Tensor, position_NK: Tensor) -> Tensor:
        ctx.save_for_backward(token_M, position_NK)
        return y_MD.index_select(0, position_NK.flatten()).unflatten(0, position_NK.shape).sum(1)

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor, None, None]:
        return _Dispatch.apply(gradient_ND, *ctx.saved_tensors), None, None


@torch.compiler.disable  # the sizes of the slices are data
def _run_slices(x_ND: Tensor, weight_NK: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor, order: Order) -> Tensor:
    """Products expert by expert: on a CPU, and where the grouped kernel is not made for the dtype."""
    weight_M1 = weight_NK.flatten()[order.pair_M, None]
    sizes = order.expert_M.bincount(minlength=len(down_EDF)).tolist()
    arguments = x_ND, weight_M1, gate_up_EGD, down_EDF, order.token_M, order.position_NK, sizes
    return _Slices.apply(*arguments) if torch.is_grad_enabled() else _forward_slices(*arguments, kept=None)


def _forward_slices(
    x_ND: Tensor,
    weight_M1: Tensor,
    gate_up_EGD: Tensor,
    down_EDF: Tensor,
    token_M: Tensor,
    position_NK: Tensor,
    sizes: list[int],
    kept: list[Tensor] | None,
) -> Tensor:
    """The result (N, D); each expert's gate and up are appended to `kept` where there is one."""
    _, width, expert_width = down_EDF.shape
    scratch = _Scratch(x_ND, max(sizes))
    y_MD = x_ND.new_empty(len(token_M), width)
    for expert, pairs in _slices(sizes):
        x = scratch.gather("x", x_ND, token_M[pairs])
        # Two products and not one of gate and up together: the passes over either are faster where it is in one piece.
        make = scratch.rows if kept is None else scratch.fresh
        gate, up = (
            torch.mm(x, matrix.t(), out=make(name, len(x), expert_width))
            for name, matrix in zip(("gate", "up"), gate_up_EGD[expert].chunk(2), strict=True)
        )
        hidden = torch.ops.aten.silu.out(gate, out=scratch.rows("hidden", len(x), expert_width))
        # Weighting before the last product spares the weights' gradient the result.
        torch.mm(hidden.mul_(up).mul_(weight_M1[pairs]), down_EDF[expert].t(), out=y_MD[pairs])
        if kept is not None:
            kept += [gate, up]
    return _sum_pairs(y_MD, position_NK)


class _Slices(torch.autograd.Function):
    """All experts in one node that keeps gate and up only, makes no copy of the stacked parameters' gradients, and
    uses the same scratch memory for every expert: on a CPU, fresh memory costs as much as the passes over it."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, sizes = arguments
        kept: list[Tensor] = []
        y_ND = _forward_slices(*arguments, kept=kept)
        ctx.save_for_backward(*tensors, *kept)
        ctx.sizes = sizes
        return y_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight_M1, gate_up_EGD, down_EDF, token_M, position_NK, *kept = ctx.saved_tensors
        scratch = _Scratch(x_ND, max(ctx.sizes))
        d_x_MD, d_weight_M = x_ND.new_empty(len(token_M), x_ND.shape[1]), torch.empty_like(weight_M1[:, 0])
        d_gate_up_EGD, d_down_EDF = torch.empty_like(gate_up_EGD), torch.empty_like(down_EDF)
        for (expert, pairs), gate, up in zip(_slices(ctx.sizes), kept[::2], kept[1::2], strict=True):
            rows = lambda name, like=gate: scratch.rows(name, *like.shape)
            x, d_y = (scratch.gather(name, y, token_M[pairs]) for name, y in (("x", x_ND), ("d_y", gradient_ND)))
            silu = torch.ops.aten.silu.out(gate, out=rows("silu"))
            hidden = torch.mul(silu, up, out=rows("hidden"))
            d_hidden = torch.mm(d_y, down_EDF[expert], out=rows("d_hidden"))
            torch.sum(torch.mul(d_hidden, hidden, out=rows("product")), 1, out=d_weight_M[pairs])
            torch.mm(d_y.t(), hidden.mul_(weight_M1[pairs]), out=d_down_EDF[expert])
            d_hidden.mul_(weight_M1[pairs])
            d_gate_up = scratch.rows("d_gate_up", len(gate), 2 * gate.shape[1])
            d_gate, d_up = d_gate_up.chunk(2, dim=-1)
            torch.mul(d_hidden, silu, out=d_up)
            torch.ops.aten.silu_backward.grad_input(d_hidden.mul_(up), gate, grad_input=d_gate)
            torch.mm(d_gate_up.t(), x, out=d_gate_up_EGD[expert])
            torch.mm(d_gate_up, gate_up_EGD[expert], out=d_x_MD[pairs])
        d_weight_M1 = d_weight_M[:, None]
        return _sum_pairs(d_x_MD, position_NK), d_weight_M1, d_gate_up_EGD, d_down_EDF, None, None, None


class _Scratch:
    """Buffers by name, of the largest slice's length, made at first use and overwritten by each expert."""

    def __init__(self, like: Tensor, num_rows: int) -> None:
        self.like = like
        self.num_rows = num_rows
        self.buffers: dict[str, Tensor] = {}

    def rows(self, name: str, num_rows: int, width: int) -> Tensor:
        if name not in self.buffers:
            self.buffers[name] = self.like.new_empty(self.num_rows, width)
        return self.buffers[name][:num_rows]

    def fresh(self, name: str, num_rows: int, width: int) -> Tensor:
        """Memory of its own, for what must outlive the slice."""
        return self.like.new_empty(num_rows, width)

    def gather(self, name: str, x_ND: Tensor, token: Tensor) -> Tensor:
        return torch.index_select(x_ND, 0, token, out=self.rows(name, len(token), x_ND.shape[1]))


def _slices(sizes: list[int]) -> list[tuple[int, slice]]:
    """Each expert and the slice of its pairs; that of an idle one is empty, and the product of nothing is 0, as its
    gradient is to be."""
    ends = accumulate(sizes)
    return [(expert, slice(end - size, end)) for expert, (size, end) in enumerate(zip(sizes, ends, strict=True))]


def _sum_pairs(y_MD: Tensor, position_NK: Tensor) -> Tensor:
    """The sum over each token's pairs -> (N, D), in one pass."""
    return F.embedding_bag(position_NK, y_MD, mode="sum")
