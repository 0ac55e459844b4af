"""Published Chronos-T5 folders in and out, with experts where there are any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreloom.models.chronos_t5.architecture import (
    MOE_PIPELINE_CLASS,
    PIPELINE_CLASS,
    Architecture,
    architecture_of_module,
)
from foreloom.models.chronos_t5.causal import CausalChronosModel
from foreloom.models.chronos_t5.model import ChronosT5Model
from foreloom.models.common.files import CONFIG_FILE, WEIGHTS_FILE, load_weights, read_json, read_weights, write_folder
from foreloom.models.common.t5.copies import COPIES, without_copies

_COPIES = (*COPIES, "lm_head.weight")


def recognises(config: Mapping[str, Any]) -> bool:
    """Is this config.json one of Chronos-T5?"""
    nested = config.get("chronos_config")
    if not isinstance(nested, Mapping) or "tokenizer_class" not in nested:
        return False
    return config.get("chronos_pipeline_class", PIPELINE_CLASS) in (PIPELINE_CLASS, MOE_PIPELINE_CLASS)


def load(folder: str | Path) -> ChronosT5Model | CausalChronosModel:
    """The model of a folder, float32 whatever the file holds, on the CPU, in evaluation mode.

    ValueError with a sentence for a folder of another family, and for weights that are damaged or do not fit.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG_FILE)
    if not recognises(config):
        raise ValueError(f"{folder} is not a Chronos-T5 model: its {CONFIG_FILE} says {config.get('architectures')}.")
    try:
        arch = Architecture.from_published(config)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    model = build_empty(arch)
    embedding = "transformer.wte.weight" if arch.model_type == "causal" else "shared.weight"
    tensors = without_copies(read_weights(folder), folder / WEIGHTS_FILE, _COPIES, embedding)
    load_weights(model.state_dict(), tensors, folder / WEIGHTS_FILE)
    return model.eval()


def save(module: nn.Module, state_dict: Mapping[str, Tensor], folder: Path) -> None:
    """Write the folder that chronos-forecasting's `from_pretrained` loads; with experts, only foreloom does."""
    dtype = str(next(iter(state_dict.values())).dtype).removeprefix("torch.")
    write_folder(Path(folder), architecture_of_module(module).to_published(dtype), state_dict)


def build_empty(arch: Architecture) -> ChronosT5Model | CausalChronosModel:
    """The module with its parameters allocated and not filled; on the meta device where that is torch's default."""
    with torch.device("meta"):
        model = CausalChronosModel(arch) if arch.model_type == "causal" else ChronosT5Model(arch)
    return model if torch.get_default_device().type == "meta" else model.to_empty(device="cpu")
