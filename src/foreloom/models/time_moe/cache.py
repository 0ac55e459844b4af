"""The keys and values of steps already seen, in room taken once.

Axes: B batch, G heads of keys and values, T new steps, S steps so far with the new ones, K width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """Keys and values of one attention layer. The room is taken at the first append, when shape and dtype are known."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """Most steps."""
        self.length = 0
        """Steps so far."""
        self._room: tuple[Tensor, Tensor] | None = None

    def append(self, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new steps behind the old ones; returns keys and values of all steps so far, (B, G, S, K)."""
        if self._room is None:
            batch, heads, _, width = k_BGTK.shape
            empty = lambda x: torch.empty(batch, heads, self.capacity, width, dtype=x.dtype, device=x.device)
            self._room = empty(k_BGTK), empty(v_BGTK)
        start, self.length = self.length, self.length + k_BGTK.shape[2]
        assert self.length <= self.capacity
        for room, new in zip(self._room, (k_BGTK, v_BGTK), strict=True):
            room[:, :, start : self.length] = new
        key, value = self._room
        return key[:, :, : self.length], value[:, :, : self.length]
