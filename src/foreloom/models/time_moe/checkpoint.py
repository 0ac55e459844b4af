"""Published Time-MoE folders in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreloom.models.common.files import CONFIG_FILE, WEIGHTS_FILE, load_weights, read_json, read_weights, write_folder
from foreloom.models.time_moe.architecture import MODEL_CLASS, MODEL_TYPE, Architecture, architecture_of_module
from foreloom.models.time_moe.model import TimeMoeForPrediction
from foreloom.models.time_moe.official_names import official_views


def recognises(config: Mapping[str, Any]) -> bool:
    """Is this config.json one of Time-MoE?"""
    return config.get("model_type") == MODEL_TYPE or MODEL_CLASS in (config.get("architectures") or ())


def load(folder: str | Path) -> TimeMoeForPrediction:
    """The model of a folder, float32 whatever the file holds, on the CPU, in evaluation mode.

    ValueError with a sentence for a folder of another family, and for weights that are damaged or do not fit.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    if not recognises(config):
        raise ValueError(f"{folder} is not a Time-MoE model: its {CONFIG_FILE} says {config.get('architectures')}.")
    model = build_empty(Architecture.from_published(config))
    load_weights(official_views(model.state_dict()), read_weights(folder), folder / WEIGHTS_FILE)
    return model.eval()


def save(module: nn.Module, state_dict: Mapping[str, Tensor], folder: Path) -> None:
    """Write the folder that the official code's `from_pretrained` loads: experts one by one, under their names."""
    dtype = str(next(iter(state_dict.values())).dtype).removeprefix("torch.")
    config = architecture_of_module(module).to_published(dtype)
    write_folder(Path(folder), config, official_views(state_dict))


def build_empty(arch: Architecture) -> TimeMoeForPrediction:
    """The module with its parameters allocated and not filled; on the meta device where that is torch's default."""
    with torch.device("meta"):
        model = TimeMoeForPrediction(arch)
    return model if torch.get_default_device().type == "meta" else model.to_empty(device="cpu")
