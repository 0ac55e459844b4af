"""The official names of parameters: where a layer's experts are stacked here, the published state dict has one by one.

Axes: E experts, F width of an expert, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

_GATE_UP = ".experts.gate_up_proj"
_DOWN = ".experts.down_proj"


def official_views(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values under their official names, in the same memory: writing into a view writes into the stack."""
    return {official: view for name, tensor in tensors.items() for official, view in _views(name, tensor.detach())}


def _views(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name.endswith(_GATE_UP):
        prefix = name.removesuffix("gate_up_proj")
        for expert, gate_up in enumerate(tensor):
            gate, up = gate_up.chunk(2)
            yield f"{prefix}{expert}.gate_proj.weight", gate
            yield f"{prefix}{expert}.up_proj.weight", up
    elif name.endswith(_DOWN):
        prefix = name.removesuffix("down_proj")
        for expert, down in enumerate(tensor):
            yield f"{prefix}{expert}.down_proj.weight", down
    else:
        yield name, tensor
