"""Published Chronos-Bolt folders in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreloom.models.chronos_bolt.architecture import (
    MODEL_CLASS,
    PIPELINE_CLASS,
    Architecture,
    architecture_of_module,
)
from foreloom.models.chronos_bolt.model import ChronosBoltModel
from foreloom.models.common.files import CONFIG_FILE, WEIGHTS_FILE, load_weights, read_json, read_weights, write_folder
from foreloom.models.common.t5.copies import without_copies

_UNUSED = "lm_head.weight"
"""What a file may have kept of the T5 it began as; the reference passes over it too."""


def recognises(config: Mapping[str, Any]) -> bool:
    """Is this config.json one of Chronos-Bolt?"""
    return config.get("chronos_pipeline_class") == PIPELINE_CLASS or MODEL_CLASS in (config.get("architectures") or ())


def load(folder: str | Path) -> ChronosBoltModel:
    """The model of a folder, float32 whatever the file holds, on the CPU, in evaluation mode.

    ValueError with a sentence for a folder of another family, and for weights that are damaged or do not fit.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    if not recognises(config):
        raise ValueError(f"{folder} is not a Chronos-Bolt model: its {CONFIG_FILE} says {config.get('architectures')}.")
    try:
        arch = Architecture.from_published(config)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    model = build_empty(arch)
    tensors = without_copies(read_weights(folder), folder / WEIGHTS_FILE)
    tensors.pop(_UNUSED, None)
    load_weights(model.state_dict(), tensors, folder / WEIGHTS_FILE)
    return model.eval()


def save(module: nn.Module, state_dict: Mapping[str, Tensor], folder: Path) -> None:
    """Write the folder that chronos-forecasting's `from_pretrained` loads."""
    dtype = str(next(iter(state_dict.values())).dtype).removeprefix("torch.")
    write_folder(Path(folder), architecture_of_module(module).to_published(dtype), state_dict)


def build_empty(arch: Architecture) -> ChronosBoltModel:
    """The module with its parameters allocated and not filled; on the meta device where that is torch's default."""
    with torch.device("meta"):
        model = ChronosBoltModel(arch)
    return model if torch.get_default_device().type == "meta" else model.to_empty(device="cpu")
