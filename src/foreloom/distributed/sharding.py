"""What a model family tells the parallel path, names of modules and never code, and what its experts get from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Sharding:
    """The names by which `parallelize` finds what to shard, recompute and compile.

    `blocks` are fnmatch patterns over `model.named_modules()`: each match is one FSDP unit, one unit of activation
    checkpointing and one `torch.compile` region.
    """

    blocks: tuple[str, ...]
    experts: tuple[str, ...] = ()
    """Patterns of the modules whose parameters are stacks, an entry an expert, and which have an `exchange`: what
    `parallel.ep` shares between ranks."""


class Route(Protocol):
    """Pairs (token, expert) on their way to where the expert is held, and back. Rows travel with their gradients.

    Axes: M pairs here, sorted by expert; R pairs received.
    """

    @property
    def expert_R(self) -> Tensor:
        """Which of the experts held here each is for."""
        ...

    def there(self, x_M: Tensor) -> Tensor:
        """(M, ...) -> (R, ...)."""
        ...

    def back(self, y_R: Tensor) -> Tensor:
        """(R, ...) -> (M, ...)."""
        ...


class Exchange(Protocol):
    """What a module of experts asks where ranks share them; it has None on a single device."""

    @property
    def whole(self) -> Sequence[Tensor] | None:
        """All experts' parameters, where they have been gathered for a while."""
        ...

    def own(self, parameter: Tensor) -> Tensor:
        """Of a stack, the experts held here."""
        ...

    def route(self, expert_M: Tensor) -> Route:
        """Where pairs go, by their experts, which are sorted. Collective."""
        ...
