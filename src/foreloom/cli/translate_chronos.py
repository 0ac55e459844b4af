"""Translates a configuration of the training script of chronos-forecasting (scripts/training) into a recipe.

What such a file leaves out has the script's default, which is written out. Rows there are counted per device and here
over the global batch, so the translation needs the number of devices.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreloom.cli.translate_tsm import SCHEDULES, as_list, as_text
from foreloom.config.located import Located, RecipeError, read_yaml

SAME: dict[str, tuple[str, Any]] = {
    "context_length": ("data.context_length", 512),
    "prediction_length": ("data.prediction_length", 64),
    "min_past": ("data.min_past", 64),
    "max_steps": ("training.steps", 200_000),
    "save_steps": ("training.save_steps", 50_000),
    "output_dir": ("training.output_dir", None),
    "seed": ("training.seed", None),
    "torch_compile": ("training.compile", True),
    "learning_rate": ("optimizer.learning_rate", 1e-3),
    "warmup_ratio": ("optimizer.warmup_ratio", 0.0),
    "log_steps": ("monitoring.log_steps", 500),
}
"""Keys that mean the same under another name, and the script's default; None: ours."""

OF_MODEL: tuple[str, ...] = (
    "model_type", "n_tokens", "n_special_tokens", "pad_token_id", "eos_token_id", "use_eos_token", "num_samples",
    "temperature", "top_k", "top_p", "use_moe", "num_experts", "num_active_experts", "router_hidden_dim",
    "load_balancing_weight",
)  # fmt: skip
"""Keys of the same name under `model`, for a new one; a checkpoint brings its own."""

FOLDED: tuple[str, ...] = (
    "training_data_paths", "probability", "per_device_train_batch_size", "gradient_accumulation_steps", "model_id",
    "random_init", "tokenizer_kwargs", "lr_scheduler_type",
)  # fmt: skip
"""Keys that become part of something else."""

DROPPED: dict[str, str] = {
    "tokenizer_class": "MeanScaleUniformBins is the one there is",
    "tie_embeddings": "embeddings and head are one, as in the published models",
    "tf32": "training.precision decides: by default bf16 on a GPU that has it, fp32 elsewhere",
    "optim": "AdamW in one pass",
    "shuffle_buffer_length": "every sample is drawn at random from all data",
    "dataloader_num_workers": "batches are read ahead by a thread (data.num_prefetch)",
    "max_missing_prop": "windows without anything to learn from count for nothing",
}
"""Keys without a counterpart, and what serves instead."""

_OWN = {
    "tokenizer_class", "tokenizer_kwargs", "n_tokens", "model_type", "tie_embeddings", "tf32", "use_eos_token",
    "num_samples", "shuffle_buffer_length", "max_missing_prop",
}  # fmt: skip
"""Keys that tell such a file from one of TSM-Trainer."""
_SIZES = ("tiny", "mini", "small", "base", "large")
_DROP = 0.2
"""Of the script: up to so much of a series is taken for missing, but for causal models."""


def is_of_script(values: Any) -> bool:
    """Are these the values of a configuration of that script, and of no recipe?"""
    if not isinstance(values, Mapping) or "model" in values or "training_data_paths" not in values:
        return False
    return bool(_OWN & values.keys()) or "t5" in str(values.get("model_id"))


def translate(path: Path, *, devices: int) -> str:
    """The file as a recipe, with notes on what has no counterpart as comments above it; see `recipe_of`."""
    values, notes = recipe_of(read_yaml(path), devices=devices)
    return as_text(path, values, notes, devices)


def recipe_of(old: Located, *, devices: int) -> tuple[dict[str, Any], list[str]]:
    """A recipe (nested mapping) that trains as the script did on `devices` devices, and notes on what was left out.

    Raises `RecipeError` with every unknown key and every contradiction, each at its line.
    """
    values = old.values
    if not isinstance(values, Mapping):
        raise RecipeError([f"{old.where('')}: expected `key: value` lines of a configuration of train.py."])
    is_new = bool(values.get("random_init", False))
    size = _size(values)
    if problems := _problems(old, values, is_new, size):
        raise RecipeError(problems)

    recipe: dict[str, dict[str, Any]] = {name: {} for name in ("model", "data", "training", "optimizer", "monitoring")}
    notes: list[str] = []
    recipe["model"]["family"] = "chronos_t5"
    told = {key: values[key] for key in OF_MODEL if values.get(key) is not None}
    limits = values.get("tokenizer_kwargs") or {}
    told |= {name: limits[name] for name in ("low_limit", "high_limit") if name in limits}
    if is_new:
        recipe["model"] |= {"size": size, **told}
    else:
        recipe["model"]["pretrained"] = values["model_id"]
        with_experts = {key: told.pop(key) for key in tuple(told) if "expert" in key or key == "use_moe"}
        recipe["model"] |= with_experts if with_experts.get("use_moe") else {}
        notes += [f"{key}: the checkpoint decides" for key in told]
    paths = as_list(values["training_data_paths"])
    weights = values.get("probability") or [1 / len(paths)] * len(paths)
    recipe["data"]["sources"] = [{"path": path, "weight": weight} for path, weight in zip(paths, weights, strict=True)]
    for key, (place, default) in SAME.items():
        section, _, name = place.partition(".")
        if (value := values.get(key, default)) is not None:
            recipe[section][name] = value
    recipe["data"]["drop_values"] = 0.0 if values.get("model_type") == "causal" else _DROP
    rows = values.get("per_device_train_batch_size", 32)
    recipe["training"]["batch_size"] = rows * values.get("gradient_accumulation_steps", 2) * devices
    recipe["training"] |= {"micro_batch_size": rows, "save_total_limit": 0}  # the script keeps all
    recipe["optimizer"] |= {"schedule": SCHEDULES[values.get("lr_scheduler_type", "linear")], "weight_decay": 0.0}
    notes += [f"{key}: {DROPPED[key]}" for key in values if key in DROPPED]
    if "seed" not in values:
        notes.append("seed: there, another one each time; here training.seed, 42 by default")
    return recipe, notes


def _size(values: Mapping[str, Any]) -> str | None:
    """The named size of a new model like google/t5-efficient-small or amazon/chronos-t5-small; None where none is."""
    name = str(values.get("model_id", "google/t5-efficient-tiny"))
    return next((size for size in _SIZES if name.endswith(f"-{size}")), None) if "t5" in name else None


def _problems(old: Located, values: Mapping[str, Any], is_new: bool, size: str | None) -> list[str]:
    """What makes the file no configuration that can be translated, a sentence each."""
    known = [*SAME, *OF_MODEL, *FOLDED, *DROPPED]
    problems = []
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            problems.append(f"{old.where(key)}: {key}: not a key of the training script of chronos-forecasting.{hint}")
    model_id = values.get("model_id")
    if is_new and size is None:
        problems.append(
            f"{old.where('model_id')}: model_id: {model_id!r} is no T5 whose size is known here ({', '.join(_SIZES)}). "
            "Write google/t5-efficient-SIZE here, and in the recipe what differs (model.d_model, model.model_type ...)."
        )
    is_chronos = model_id is not None and ("chronos" in model_id.lower() or Path(model_id).is_dir())
    if not is_new and not is_chronos:
        problems.append(
            f"{old.where('random_init')}: random_init: false begins with {model_id or 'google/t5-efficient-tiny'}, a "
            "model of text. Name a Chronos-T5 as model_id (amazon/chronos-t5-small, or a folder), or set random_init: "
            "true."
        )
    paths, weights = as_list(values.get("training_data_paths")), values.get("probability")
    if not paths:
        problems.append(f"{old.where('')}: training_data_paths: is required and not given.")
    if weights and len(weights) != len(paths):
        problems.append(f"{old.where('probability')}: probability: {len(weights)} numbers for {len(paths)} data paths.")
    schedule = values.get("lr_scheduler_type", "linear")
    if schedule not in SCHEDULES:
        problems.append(
            f"{old.where('lr_scheduler_type')}: lr_scheduler_type: {schedule!r} is not one of {', '.join(SCHEDULES)}."
        )
    if values.get("tokenizer_class", "MeanScaleUniformBins") != "MeanScaleUniformBins":
        problems.append(f"{old.where('tokenizer_class')}: tokenizer_class: foreloom has MeanScaleUniformBins only.")
    return problems
