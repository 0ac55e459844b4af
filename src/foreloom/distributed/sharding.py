"""What a model family tells the parallel path: names of modules, never code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sharding:
    """The names by which `parallelize` finds what to shard, recompute and compile.

    `blocks` are fnmatch patterns over `model.named_modules()`: each match is one FSDP unit, one unit of activation
    checkpointing and one `torch.compile` region.
    """

    blocks: tuple[str, ...]
