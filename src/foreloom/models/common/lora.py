"""Low-rank adapters (Hu et al. 2021): those of PEFT, added to the weights they were trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PATTERN = re.compile(r"\^?(?:(?:\w|\\?\.|\\d|\[[\w-]+\])[*+]?|\((?:[\w.]+\|)*[\w.]+\))+\$?")
"""What a pattern of module names may be made of: names, dots, digits, classes and choices, with two repeats at most.
Not any regular expression: there are short ones that never end on a name of thirty letters."""
_MOST_REPEATS = 2
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
    ranks = _by_module(config, "r", "rank_pattern", folder)
    alphas = _by_module(config, "lora_alpha", "alpha_pattern", folder)
    for name, a in adapter.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        target = module.removeprefix(_PREFIX)
        weight, b = tensors.get(f"{target}.weight"), adapter.get(f"{module}.lora_B.weight")
        if weight is None or b is None or weight.shape != (len(b), a.shape[1]):
            raise ValueError(f"{file}: the adapter of {target} does not fit the base model.")
        rank, scale = _of_module(ranks, target), _of_module(alphas, target)
        divisor = rank**0.5 if config.get("use_rslora") else rank
        update = scale / divisor * torch.mm(b.float(), a.float())
        tensors[f"{target}.weight"] = (weight.float() + update).to(weight.dtype)


def _by_module(config: Mapping[str, Any], key: str, pattern_key: str, folder: Path) -> dict[str, float]:
    """PEFT's exceptions by pattern, then what holds of all other modules; ValueError for what cannot be read."""
    file, patterns = folder / ADAPTER_CONFIG_FILE, config.get(pattern_key) or {}
    if not isinstance(patterns, Mapping):
        raise ValueError(f"{file}: {pattern_key} is {patterns!r}; expected numbers by name of a module.")
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern) or len(re.findall(r"[*+]", pattern)) > _MOST_REPEATS:
            raise ValueError(
                f"{file}: {pattern_key} has {pattern!r}; expected names of modules, with [0-9], (q|v), and at most "
                f"{_MOST_REPEATS} repeats such as .* in them."
            )
    values: dict[str, Any] = {**patterns, ".*": config.get(key)}
    for number in values.values():
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
            raise ValueError(f"{file}: {key} and {pattern_key} must be numbers above 0, got {number!r}.")
    return values


def _of_module(values: Mapping[str, float], module: str) -> float:
    """The number of the first pattern that matches the end of the module's name, as PEFT finds it."""
    return next(value for pattern, value in values.items() if re.match(rf"(.*\.)?({pattern})$", module))
