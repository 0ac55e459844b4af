"""How the weights of Time-MoE are named, begin, and are read and written as published.

Where a layer's experts are stacked here, the published state dict has one by one.
Axes: E experts, F width of an expert, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from torch import Tensor, nn

from foreloom.models.common.hub_folder import HubFolder
from foreloom.models.common.initialize import normal_by_name
from foreloom.models.time_moe.architecture import MODEL_CLASS, MODEL_TYPE, Architecture, Protocol
from foreloom.models.time_moe.model import TimeMoeForPrediction

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


def initialize(module: nn.Module, seed: int) -> None:
    """Random values for parameters and buffers: normal matrices, norms of 1, biases of 0.

    Names that seed are the official ones, so stacking experts changes no value.
    """
    std = Architecture.of(module).initializer_range
    for name, tensor in official_views(module.state_dict()).items():
        if name.endswith("norm.weight"):
            nn.init.ones_(tensor)
        elif name.endswith("bias"):
            nn.init.zeros_(tensor)
        else:
            normal_by_name(tensor, name, seed, std)


def recognises(config: Mapping[str, Any]) -> bool:
    """Is this config.json one of Time-MoE?"""
    return config.get("model_type") == MODEL_TYPE or MODEL_CLASS in (config.get("architectures") or ())


FOLDER = HubFolder("Time-MoE", recognises, Architecture, TimeMoeForPrediction, published_names=official_views)


def load(folder: Path, protocol: str = "standard") -> TimeMoeForPrediction:
    """The module of a folder, by one protocol or the other."""
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol {protocol!r}: choose one of {', '.join(get_args(Protocol))}.")
    module = FOLDER.load(folder)
    module.protocol = cast(Protocol, protocol)
    return module
