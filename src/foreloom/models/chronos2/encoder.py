"""The Chronos-2 encoder: time attention within a row, group attention across rows, feed-forward.

Rows are put in order once a forward, one-row groups first, then groups by size: each size is then one dense block
(groups, size) and group attention costs what the groups cost, not batch x batch.

Axes: B rows, T tokens, D model width, H heads, K width of a head, I = H*K; G groups of S rows each.
Module names are those of the published state dict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.models.chronos2.architecture import Architecture
from foreloom.models.common.attention import attend
from foreloom.models.common.dropout import add_dropped, dropout
from foreloom.models.common.layers import FeedForward, RMSNorm, add_product, rotate
from foreloom.models.common.rows import to_device

SCORE_SCALE = 1.0
"""T5 leaves attention scores unscaled; the initialisation of q carries the 1/sqrt(K)."""


@dataclass(frozen=True)
class Layout:
    """What the host knows of a batch before the device sees it: which rows belong together, and is anything padded."""

    num_single: int
    """Rows that are alone in their group; they come first."""
    blocks: tuple[tuple[int, int], ...]
    """(number of groups, rows of each) for every size above one, in the order the rows come."""
    order: Tensor | None = None
    """int64 (B,): row i of the ordered batch is row order[i] of the given one; None where they are the same."""
    inverse: Tensor | None = None
    """int64 (B,), undoes `order`."""
    grouped: bool = False
    """Is any row not alone? As a field, so that a compiled block asks this and not how many sizes there are."""
    all_observed: bool = False
    """True: every patch of every row has an observed step, so no mask is needed. False: not known."""


def layout_of(group_ids: np.ndarray | None, num_rows: int, device: torch.device, *, all_observed: bool) -> Layout:
    """Order the rows of a batch by their group ids, any integers (B,); None makes every row its own group."""
    if group_ids is None:
        return Layout(num_rows, (), all_observed=all_observed)
    _, group, group_size = np.unique(group_ids, return_inverse=True, return_counts=True)
    row_size = group_size[group]
    sizes, num_groups = np.unique(group_size, return_counts=True)
    blocks = tuple((int(n), int(size)) for n, size in zip(num_groups, sizes, strict=True) if size > 1)
    num_single = int((row_size == 1).sum())
    order = np.lexsort((group, row_size)) if blocks else np.arange(num_rows)
    if (order == np.arange(num_rows)).all():
        return Layout(num_single, blocks, grouped=bool(blocks), all_observed=all_observed)
    move = lambda index: to_device(index, device)
    return Layout(num_single, blocks, move(order), move(np.argsort(order)), bool(blocks), all_observed)


class Projections(nn.Module):
    """The four projections of an attention, no biases."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.q = nn.Linear(arch.d_model, arch.inner_width, bias=False)
        self.k = nn.Linear(arch.d_model, arch.inner_width, bias=False)
        self.v = nn.Linear(arch.d_model, arch.inner_width, bias=False)
        self.o = nn.Linear(arch.inner_width, arch.d_model, bias=False)


class Residual(nn.Module):
    """What is added to the residual stream, behind a norm."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.layer_norm = RMSNorm(arch.d_model, arch.layer_norm_epsilon)
        self.dropout_rate = arch.dropout_rate

    def add(self, h: Tensor, x: Tensor, last: nn.Linear) -> Tensor:
        """h + dropout(last(x)); h may be overwritten."""
        if self.training:
            return add_dropped(h, last(x), self.dropout_rate, self.training)
        return add_product(h, x, last.weight)


class Attention(Residual):
    """Norm and projections, which both attentions have."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__(arch)
        self.self_attention = Projections(arch)
        self.num_heads = arch.num_heads


class TimeAttention(Attention):
    """Tokens of one row attend to each other, rotary positions, padded patches hidden."""

    def forward(
        self, h_BTD: Tensor, rotary: tuple[Tensor, Tensor], valid_BT: Tensor | None, num_last: int | None
    ) -> Tensor:
        """The residual stream after this layer; of the last `num_last` tokens only where a number is given."""
        cos, sin = rotary
        projections = self.self_attention
        x = self.layer_norm(h_BTD)
        start = 0 if num_last is None else x.shape[1] - num_last
        heads = lambda y: y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        q = rotate(heads(projections.q(x[:, start:])), cos[start:], sin[start:])
        k = rotate(heads(projections.k(x)), cos, sin)
        mask = None if valid_BT is None else valid_BT[:, None, None, :]
        attention_dropout = self.dropout_rate if self.training else 0.0
        mixed = attend(q, k, heads(projections.v(x)), mask=mask, scale=SCORE_SCALE, dropout=attention_dropout)
        return self.add(h_BTD[:, start:], mixed.transpose(1, 2).flatten(2), projections.o)


class GroupAttention(Attention):
    """Rows of one group attend to each other, token position by token position, no order among them.

    A row that is alone sees only itself: its softmax is 1, so q and k are not computed and get no gradient.
    """

    def forward(self, h_BTD: Tensor, valid_BT: Tensor | None, layout: Layout) -> Tensor:
        x = self.layer_norm(h_BTD)
        num_tokens, width = x.shape[0] * x.shape[1], x.shape[2]
        o, v = self.self_attention.o, self.self_attention.v
        rates: list[Any] = [self.dropout_rate, *(getattr(one, "lora_dropout_rate", 0.0) for one in (o, v))]
        drops = self.training and max(rates) > 0
        if not layout.grouped and not drops and num_tokens > 2 * width:
            # Nothing stands between v and o: one product with o v, once there are rows enough to pay for composing it.
            return add_product(h_BTD, x, o.weight @ v.weight)
        mixed = self.mix(x, v(x), valid_BT, layout)
        return self.add(h_BTD, mixed, o)

    def mix(self, x_BTD: Tensor, v_BTI: Tensor, valid_BT: Tensor | None, layout: Layout) -> Tensor:
        """Values mixed over the rows of each group, (B, T, I)."""
        alone = layout.num_single
        parts = []
        if alone:
            v = v_BTI[:alone].unflatten(-1, (self.num_heads, -1))
            # The weight of the one key is 1 before dropout, and dropout takes it away with its probability.
            weight = dropout(v.new_ones(*v.shape[:-1], 1), self.dropout_rate, self.training)
            parts.append((v * weight).flatten(-2))
        if layout.grouped:
            valid = None if valid_BT is None else valid_BT[alone:]
            parts.append(self.mix_groups(x_BTD[alone:], v_BTI[alone:], valid, layout))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.compiler.disable  # every batch has other group sizes, and a compiled block would be compiled anew for each
    def mix_groups(self, x_BTD: Tensor, v_BTI: Tensor, valid_BT: Tensor | None, layout: Layout) -> Tensor:
        """The rows of groups larger than one, (B, T, I), a dense block a size."""
        q, k = self.self_attention.q(x_BTD), self.self_attention.k(x_BTD)
        parts, row = [], 0
        for num_groups, size in layout.blocks:
            rows = slice(row, row + num_groups * size)
            valid = None if valid_BT is None else valid_BT[rows]
            parts.append(self.attend_block(q[rows], k[rows], v_BTI[rows], valid, size))
            row = rows.stop
        return torch.cat(parts)

    def attend_block(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, size: int) -> Tensor:
        """(G*S, T, I) each -> (G*S, T, I), attending over S."""
        num_tokens = q.shape[1]

        def to_blocks(y: Tensor) -> Tensor:
            y_GSTHK = y.unflatten(0, (-1, size)).unflatten(-1, (self.num_heads, -1))
            return y_GSTHK.permute(0, 2, 3, 1, 4).flatten(0, 1)

        mask = None
        if valid is not None:
            mask = valid.unflatten(0, (-1, size)).transpose(1, 2).flatten(0, 1)
            # Where no row of the group has a patch, nobody reads the result: look anywhere, so that it stays finite.
            mask = (mask | ~mask.any(-1, keepdim=True))[:, None, None, :]
        rate = self.dropout_rate if self.training else 0.0
        mixed = attend(to_blocks(q), to_blocks(k), to_blocks(v), mask=mask, scale=SCORE_SCALE, dropout=rate)
        return mixed.unflatten(0, (-1, num_tokens)).permute(0, 3, 1, 2, 4).flatten(3).flatten(0, 1)


class FeedForwardLayer(Residual):
    """Norm and feed-forward, added to the residual stream."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__(arch)
        self.mlp = FeedForward(arch.d_model, arch.d_ff, arch.feed_forward_proj, arch.dropout_rate)

    def forward(self, h_BTD: Tensor) -> Tensor:
        return self.add(h_BTD, self.mlp.hidden(self.layer_norm(h_BTD)), self.mlp.wo)


class Block(nn.Module):
    """One encoder block: the unit of sharding, recomputation and compilation."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.layer = nn.ModuleList([TimeAttention(arch), GroupAttention(arch), FeedForwardLayer(arch)])

    def forward(
        self,
        h_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        valid_BT: Tensor | None,
        layout: Layout,
        num_last: int | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, num_last, D): the last block need not finish tokens that nobody reads.

        Outside training and without a graph, what is handed in may be overwritten.
        """
        time, group, feed_forward = self.layer
        h_BTD = time(h_BTD, rotary, valid_BT, num_last)
        # The last tokens are those of the future, always valid.
        return feed_forward(group(h_BTD, valid_BT if num_last is None else None, layout))


class Encoder(nn.Module):
    """Blocks and a final norm."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.block = nn.ModuleList([Block(arch) for _ in range(arch.num_layers)])
        self.final_layer_norm = RMSNorm(arch.d_model, arch.layer_norm_epsilon)
        self.dropout_rate = arch.dropout_rate

    def forward(
        self,
        h_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        valid_BT: Tensor | None,
        layout: Layout,
        num_last: int | None,
    ) -> Tensor:
        """Hidden states of all tokens, or of the last `num_last`."""
        h_BTD = dropout(h_BTD, self.dropout_rate, self.training)
        for index, block in enumerate(self.block):
            is_last = index == len(self.block) - 1
            h_BTD = block(h_BTD, rotary, valid_BT, layout, num_last if is_last else None)
        return dropout(self.final_layer_norm(h_BTD), self.dropout_rate, self.training)
