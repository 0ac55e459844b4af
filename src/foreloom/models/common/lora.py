"""Low-rank adapters (Hu et al. 2021): those of PEFT, added to the weights they were trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_UNSUPPORTED = ("use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "modules_to_save", "lora_bias")


def merge_adapter(
    tensors: dict[str, Tensor], adapter: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path
) -> None:
    """W += alpha / rank * B A, in place, for every pair in the adapter, which was read from `folder`.

    ValueError where the adapter needs more than that (DoRA and the like), or names a weight the model has not.
    """
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder} holds a {config.get('peft_type')} adapter; only LORA can be merged.")
    unsupported = [key for key in _UNSUPPORTED if config.get(key)]
    if unsupported:
        raise ValueError(f"{folder / ADAPTER_CONFIG_FILE} sets {unsupported[0]}, which cannot be merged here.")
    file = folder / ADAPTER_WEIGHTS_FILE
    if strange := [name for name in adapter if not re.search(r"\.lora_[AB]\.weight$", name)]:
        raise ValueError(f"{file} holds {strange[0]}, which is not a LoRA weight.")
    for name, a in adapter.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        target = module.removeprefix(_PREFIX)
        weight, b = tensors.get(f"{target}.weight"), adapter.get(f"{module}.lora_B.weight")
        if weight is None or b is None or weight.shape != (len(b), a.shape[1]):
            raise ValueError(f"{file}: the adapter of {target} does not fit the base model.")
        scale = _of_module(config, "alpha_pattern", target, config["lora_alpha"])
        rank = _of_module(config, "rank_pattern", target, config["r"])
        divisor = rank**0.5 if config.get("use_rslora") else rank
        update = scale / divisor * torch.mm(b.float(), a.float())
        tensors[f"{target}.weight"] = (weight.float() + update).to(weight.dtype)


def _of_module(config: Mapping[str, Any], pattern_key: str, module: str, default: float) -> float:
    """PEFT's per-module exceptions: the first pattern that matches the end of the module's name."""
    for pattern, value in (config.get(pattern_key) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
