"""Where the steps of a forward are and what they may look at, the same in every layer.

Axes: B rows, H heads, T steps of this forward, S steps with those in the cache, K width of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foreloom.models.common.attention import Implementation, causal_mask
from foreloom.models.common.rope import rotary_at, rotary_table
from foreloom.models.time_moe.architecture import Architecture


class Sight(NamedTuple):
    """What the attention of a layer needs besides its input."""

    rotary: tuple[Tensor, Tensor]
    """Cosine and sine, (T, K/2) or (B, 1, T, K/2)."""
    mask_BHTS: Tensor | None
    """bool, broadcasting: True where a step may look. None: everything up to itself."""
    implementation: Implementation

    def last(self, num_steps: int) -> Sight:
        """The same for the last steps only."""
        cos, sin = self.rotary
        mask = None if self.mask_BHTS is None else self.mask_BHTS[..., -num_steps:, :]
        return Sight((cos[..., -num_steps:, :], sin[..., -num_steps:, :]), mask, self.implementation)


def sight_of(
    x_BT: Tensor,
    arch: Architecture,
    *,
    num_past: int,
    attention_mask: Tensor | None,
    position_BS: Tensor | None,
    group_BS: Tensor | None,
    implementation: Implementation,
) -> Sight:
    """Plain causal attention wherever nothing else is asked, since only that is fast everywhere.

    ValueError where `attention_mask` is not (B, S).
    """
    (num_rows, num_steps), device = x_BT.shape, x_BT.device
    num_keys = num_past + num_steps
    if position_BS is None:
        cos, sin = rotary_table(num_keys, arch.head_width, arch.rope_theta, device)
        cos, sin = cos[num_past:], sin[num_past:]
    else:
        cos, sin = rotary_at(position_BS[:, None], arch.head_width, arch.rope_theta)
    if attention_mask is None and group_BS is None:
        return Sight((cos, sin), None, implementation)
    mask = causal_mask(num_steps, num_keys, device)
    if group_BS is not None:
        mask = mask & (group_BS[:, None, :, None] == group_BS[:, None, None, :])
    if attention_mask is not None:
        if attention_mask.shape != (num_rows, num_keys):
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}; expected {(num_rows, num_keys)}, a number "
                "for every step of every row."
            )
        # A step of padding sees itself, so that what it computes, which nobody reads, is finite.
        itself = causal_mask(num_steps, num_keys, device).triu(num_keys - num_steps)
        mask = (mask & (attention_mask[:, None, None, :] > 0)) | itself
    return Sight((cos, sin), mask, implementation)


def places(segment_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Of packed rows: each step's place in its segment, and the segment's number counted over the whole batch."""
    step_T = torch.arange(segment_BT.shape[1], device=segment_BT.device)
    begins_BT = torch.ones_like(segment_BT, dtype=torch.bool)
    begins_BT[:, 1:] = segment_BT[:, 1:] != segment_BT[:, :-1]
    start_BT = torch.where(begins_BT, step_T, 0).cummax(1).values
    group_BT = (begins_BT.flatten().cumsum(0) - 1).view_as(segment_BT)
    return step_T - start_BT, group_BT
