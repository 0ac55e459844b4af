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
from foreloom.models.chronos_t5.model import ChronosT5Model
from foreloom.models.common.files import CONFIG_FILE, WEIGHTS_FILE, load_weights, read_json, read_weights, write_folder

_DUPLICATES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
"""Names under which older files hold `shared.weight` again."""


def recognises(config: Mapping[str, Any]) -> bool:
    """Is this config.json one of Chronos-T5?"""
    nested = config.get("chronos_config")
    if not isinstance(nested, Mapping) or "tokenizer_class" not in nested:
        return False
    return config.get("chronos_pipeline_class", PIPELINE_CLASS) in (PIPELINE_CLASS, MOE_PIPELINE_CLASS)


def load(folder: str | Path) -> ChronosT5Model:
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
    load_weights(model.state_dict(), _without_duplicates(read_weights(folder), folder), folder / WEIGHTS_FILE)
    return model.eval()


def save(module: nn.Module, state_dict: Mapping[str, Tensor], folder: Path) -> None:
    """Write the folder that chronos-forecasting's `from_pretrained` loads; with experts, only foreloom does."""
    dtype = str(next(iter(state_dict.values())).dtype).removeprefix("torch.")
    write_folder(Path(folder), architecture_of_module(module).to_published(dtype), state_dict)


def build_empty(arch: Architecture) -> ChronosT5Model:
    """The module with its parameters allocated and not filled; on the meta device where that is torch's default."""
    with torch.device("meta"):
        model = ChronosT5Model(arch)
    return model if torch.get_default_device().type == "meta" else model.to_empty(device="cpu")


def _without_duplicates(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The tensors less the copies of the embedding; ValueError where one is no copy."""
    for name in _DUPLICATES:
        if name in tensors and "shared.weight" in tensors and not tensors[name].equal(tensors["shared.weight"]):
            raise ValueError(
                f"{folder / WEIGHTS_FILE}: {name} differs from shared.weight; foreloom and transformers 5 have models "
                "with one embedding for input and output only."
            )
    return {name: tensor for name, tensor in tensors.items() if name not in _DUPLICATES}
