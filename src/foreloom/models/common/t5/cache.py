"""What a decoder keeps while it generates: keys and values of its own positions, and those of the encoder's.

Axes: B rows, R rows of queries, H heads, S positions, K width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class SelfCache:
    """One layer's own positions, in room taken once."""

    max_length: int
    length: int = 0
    _room: tuple[Tensor, Tensor] | None = None

    def append(self, k_RHTK: Tensor, v_RHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new positions; keys and values of all so far, (R, H, S, K) each."""
        if self._room is None:
            shape = (*k_RHTK.shape[:2], self.max_length, k_RHTK.shape[3])
            self._room = (k_RHTK.new_empty(shape), v_RHTK.new_empty(shape))
        end = self.length + k_RHTK.shape[2]
        assert end <= self.max_length
        for room, new in zip(self._room, (k_RHTK, v_RHTK), strict=True):
            room[:, :, self.length : end] = new
        self.length = end
        return self._room[0][:, :, :end], self._room[1][:, :, :end]


@dataclass
class CrossCache:
    """One layer's view of the encoder, (B, H, S, K) each, filled by the first forward."""

    keys: Tensor | None = None
    values: Tensor | None = None


@dataclass
class DecoderCache:
    """Of all layers. One generation's; a forward with it appends its positions."""

    num_layers: int
    max_length: int
    own: list[SelfCache] = field(init=False)
    across: list[CrossCache] = field(init=False)

    def __post_init__(self) -> None:
        self.own = [SelfCache(self.max_length) for _ in range(self.num_layers)]
        self.across = [CrossCache() for _ in range(self.num_layers)]

    @property
    def length(self) -> int:
        """Positions in it."""
        return self.own[0].length
