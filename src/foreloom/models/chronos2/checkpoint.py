"""Published Chronos-2 folders in and out, LoRA adapters merged on the way in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foreloom.models.chronos2.architecture import PIPELINE_CLASS, Architecture
from foreloom.models.chronos2.model import Chronos2Model
from foreloom.models.common.files import CONFIG_FILE, WEIGHTS_FILE, load_weights, read_json, read_weights, write_folder
from foreloom.models.common.lora import ADAPTER_CONFIG_FILE, base_folder, merge_adapter


def recognises(config: Mapping[str, Any]) -> bool:
    """Is this config.json one of Chronos-2?"""
    classes = config.get("architectures") or ()
    return config.get("chronos_pipeline_class") == PIPELINE_CLASS or "Chronos2Model" in classes


def load(folder: str | Path) -> Chronos2Model:
    """The model of a folder, float32, on the CPU, in evaluation mode; a folder with an adapter is merged into its base.

    ValueError with a sentence for a folder of another family, and for weights that are damaged or do not fit.
    """
    folder = Path(folder)
    adapter = folder if (folder / ADAPTER_CONFIG_FILE).is_file() else None
    if adapter is not None:
        folder = base_folder(adapter, read_json(adapter / ADAPTER_CONFIG_FILE))
    config = read_json(folder / CONFIG_FILE)
    if not recognises(config):
        raise ValueError(f"{folder} is not a Chronos-2 model: its {CONFIG_FILE} says {config.get('architectures')}.")
    model = build_empty(Architecture.from_published(config))
    tensors = read_weights(folder)
    if adapter is not None:
        merge_adapter(tensors, adapter)
    load_weights(model.state_dict(), tensors, folder / WEIGHTS_FILE)
    return model.eval()


def save(module: nn.Module, state_dict: Mapping[str, Tensor], folder: Path) -> None:
    """Write the folder that chronos-forecasting's `from_pretrained` loads."""
    assert isinstance(module, Chronos2Model)
    dtype = next(iter(state_dict.values())).dtype
    write_folder(Path(folder), module.architecture.to_published(str(dtype).removeprefix("torch.")), state_dict)


def build_empty(arch: Architecture) -> Chronos2Model:
    """The module with its parameters allocated and not filled; on the meta device where that is torch's default."""
    with torch.device("meta"):
        model = Chronos2Model(arch)
    return model if torch.get_default_device().type == "meta" else model.to_empty(device="cpu")
