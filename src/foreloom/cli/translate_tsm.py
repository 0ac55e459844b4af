"""Translates the flat YAML of TSM-Trainer, the earlier Chronos-2 trainer, into a recipe.

Rows there are counted per device and here over the global batch, so the translation needs the number of devices.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from foreloom.config.located import Located, RecipeError, read_yaml

RENAMED: dict[str, str] = {
    "model_id": "model.pretrained",
    "d_model": "model.d_model",
    "d_kv": "model.d_kv",
    "d_ff": "model.d_ff",
    "num_layers": "model.num_layers",
    "num_heads": "model.num_heads",
    "dropout_rate": "model.dropout_rate",
    "layer_norm_epsilon": "model.layer_norm_epsilon",
    "initializer_factor": "model.initializer_factor",
    "feed_forward_proj": "model.feed_forward_proj",
    "rope_theta": "model.rope_theta",
    "max_output_patches": "model.max_output_patches",
    "use_reg_token": "model.use_reg_token",
    "use_arcsinh": "model.use_arcsinh",
    "time_encoding_scale": "model.time_encoding_scale",
    "quantiles": "model.quantiles",
    "context_length": "data.context_length",
    "prediction_length": "data.prediction_length",
    "min_past": "data.min_past",
    "max_steps": "training.steps",
    "seed": "training.seed",
    "output_dir": "training.output_dir",
    "save_steps": "training.save_steps",
    "save_total_limit": "training.save_total_limit",
    "max_grad_norm": "training.max_grad_norm",
    "torch_compile": "training.compile",
    "gradient_checkpointing": "training.activation_checkpointing",
    "learning_rate": "optimizer.learning_rate",
    "warmup_ratio": "optimizer.warmup_ratio",
    "warmup_steps": "optimizer.warmup_steps",
    "weight_decay": "optimizer.weight_decay",
    "adam_epsilon": "optimizer.epsilon",
    "log_steps": "monitoring.log_steps",
    "health_report_interval": "monitoring.health_steps",
}
"""Keys that mean the same under another name."""

FOLDED: dict[str, str] = {
    "random_init": "no model.pretrained: random values; model.pretrained: a checkpoint",
    "input_patch_size": "model.input_patch_size",
    "input_patch_stride": "model.input_patch_size",
    "output_patch_size": "model.input_patch_size",
    "training_data_paths": "data.sources: a path each",
    "probability": "data.sources: a weight each, and it holds whatever the sizes",
    "max_train_series": "data.sources: max_series each (their share of it)",
    "per_device_train_batch_size": "training.micro_batch_size; training.batch_size is the global batch",
    "gradient_accumulation_steps": "training.batch_size / (devices x micro_batch_size)",
    "lr_scheduler_type": "optimizer.schedule",
    "optim": "optimizer.name",
    "adam_beta1": "optimizer.betas",
    "adam_beta2": "optimizer.betas",
    "fsdp": "parallel.strategy",
    "report_to": "monitoring.trackers",
    "validation_data_paths": "validation.sources: a path each, the last window of every series, at every checkpoint",
    "max_val_series": "validation.max_windows",
    "benchmark_config": "benchmark.suite",
    "benchmark_eval_steps": "benchmark.steps",
    "benchmark_tier2_config": "benchmark.extended_suite",
    "benchmark_tier2_eval_steps": "benchmark.extended_steps",
    "benchmark_composite_weights": "benchmark.weights: of wql and of mase",
    "benchmark_checkpoint_metric": "benchmark.metric",
    "benchmark_batch_size": "benchmark.batch_size",
    "benchmark_datasets_root": "benchmark.data_root",
    "benchmark_top_k_checkpoints": "checkpoint.keep_best",
    "resume_from_checkpoint": "foreloom train --resume (finds the newest whole checkpoint by itself)",
}
"""Keys that become part of something else."""

DROPPED: dict[str, str] = {
    "attn_implementation": "the fastest exact attention is chosen by itself",
    "benchmark_eval_timeout": "a benchmark has no limit of time",
    "dataloader_num_workers": "batches are read ahead by a thread (data.num_prefetch)",
    "ddp_bucket_cap_mb": "torch's default",
    "fsdp_config": "blocks are sharded by name; checkpoints are sharded too",
}
"""Keys without a counterpart, and what serves instead."""

SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "warmup_stable_decay": "wsd",
}


def translate(path: Path, *, devices: int) -> str:
    """The file as a recipe, with notes on what has no counterpart as comments above it; see `recipe_of`."""
    values, notes = recipe_of(read_yaml(path), devices=devices)
    return as_text(path, values, notes, devices)


def as_text(path: Path, recipe: Mapping[str, Any], notes: Iterable[str], devices: int) -> str:
    """A recipe translated from the file at `path`, notes as comments above it."""
    header = [f"# Translated from {path.name} for {devices} device{'s' if devices > 1 else ''}."]
    for note in notes:
        header += textwrap.wrap(note, 116, initial_indent="# - ", subsequent_indent="#   ")
    return "\n".join(header) + "\n\n" + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=120)


def recipe_of(old: Located, *, devices: int) -> tuple[dict[str, Any], list[str]]:
    """A recipe (nested mapping) that trains as the old file did on `devices` devices, and notes on what was left out.

    Raises `RecipeError` with every unknown key and every contradiction, each at its line.
    """
    values = old.values
    if not isinstance(values, Mapping):
        raise RecipeError([f"{old.where('')}: expected `key: value` lines of a TSM-Trainer configuration."])
    if problems := _problems(old, values):
        raise RecipeError(problems)

    random_init = values.get("random_init", True)
    patches = {key: values[key] for key in _PATCH_KEYS if key in values}
    recipe: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
    notes: list[str] = []
    recipe["model"]["family"] = "chronos2"
    for key, place in RENAMED.items():
        if values.get(key) is None or (key == "model_id" and random_init):
            continue
        section, _, name = place.partition(".")
        if section == "model" and not random_init and name not in _EDITABLE:
            notes.append(f"{key}: the checkpoint decides")
            continue
        recipe[section][name] = values[key]
    if random_init:
        recipe["model"] |= {"size": "base"} | ({"input_patch_size": next(iter(patches.values()))} if patches else {})
        recipe["model"].setdefault("max_output_patches", 64)
        if "context_length" in values:  # their time scale was that of the context unless it was given
            recipe["model"] |= {"context_length": values["context_length"]}
            recipe["model"].setdefault("time_encoding_scale", values["context_length"])
    recipe["data"]["sources"] = _sources(values)
    rows = values.get("per_device_train_batch_size", 1)
    recipe["training"]["batch_size"] = rows * values.get("gradient_accumulation_steps", 1) * devices
    recipe["training"]["micro_batch_size"] = rows
    recipe["optimizer"]["schedule"] = SCHEDULES[values.get("lr_scheduler_type", _DEFAULT_SCHEDULE)]
    recipe["optimizer"]["betas"] = [values.get("adam_beta1", 0.9), values.get("adam_beta2", 0.999)]
    recipe["optimizer"].setdefault("weight_decay", 0.01)
    if not recipe["optimizer"].get("warmup_steps"):
        recipe["optimizer"].pop("warmup_steps", None)
        recipe["optimizer"].setdefault("warmup_ratio", 0.01)
    else:
        recipe["optimizer"].pop("warmup_ratio", None)
    if "fsdp" in values:
        recipe["parallel"]["strategy"] = "fsdp" if values["fsdp"] else "ddp"
    if "report_to" in values:
        asked = as_list(values["report_to"])
        recipe["monitoring"]["trackers"] = [name for name in _TRACKERS if name in asked] or ["none"]
        notes += [f"report_to: {name}: no such tracker here" for name in asked if name not in (*_TRACKERS, "none")]
    recipe["validation"], recipe["benchmark"] = _validation(values), _benchmark(values, notes)
    if recipe["benchmark"] and "benchmark_top_k_checkpoints" in values:
        recipe["checkpoint"]["keep_best"] = values["benchmark_top_k_checkpoints"]
    notes += [f"{key}: {DROPPED[key]}" for key in values if key in DROPPED]
    if "resume_from_checkpoint" in values:
        notes.append(f"resume_from_checkpoint: {FOLDED['resume_from_checkpoint']}")
    if devices == 1 and "fsdp" in values:
        notes.append("training.batch_size: counted for 1 device; give --devices N for the cluster it ran on")
    return {name: settings for name, settings in recipe.items() if settings}, notes


_DEFAULT_SCHEDULE = "cosine"
_PATCH_KEYS = ("input_patch_size", "input_patch_stride", "output_patch_size")
_TRACKERS = ("tensorboard", "wandb", "mlflow")
_SECTIONS = (
    "model", "data", "training", "optimizer", "validation", "benchmark", "parallel", "checkpoint", "monitoring",
)  # fmt: skip
_SUITES = {"lite-benchmark": "chronos-lite", "zero-shot": "chronos-zero-shot", "in-domain": "chronos-in-domain"}
"""What the lists are called here that came with it; all others have their names here too."""
_EDITABLE = ("pretrained", "max_output_patches", "dropout_rate")


def is_old(values: Any) -> bool:
    """Are these the values of a TSM-Trainer file, and of no recipe?"""
    known = {*RENAMED, *FOLDED, *DROPPED}
    return isinstance(values, Mapping) and "model" not in values and sum(key in known for key in values) > 1


def _validation(values: Mapping[str, Any]) -> dict[str, Any]:
    """Theirs was on the last window of every series, at every checkpoint, and the best model was what it left."""
    paths = as_list(values.get("validation_data_paths"))
    if not paths:
        return {}
    return {
        "steps": values.get("save_steps") or 1000,
        "sources": [{"path": path, "holdout": values["prediction_length"]} for path in paths],
        "max_windows": values.get("max_val_series", 10_000),
        "restore_best": True,
    }


def _benchmark(values: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The section, with their defaults where the old file says nothing; a note on what has no effect or is missing."""
    if not values.get("benchmark_config"):
        idle = [key for key in values if key.startswith("benchmark_") and key not in DROPPED]
        notes += [f"{key}: has no effect without benchmark_config" for key in idle]
        return {}
    weights = values.get("benchmark_composite_weights") or {"wql": 0.7, "mase": 0.3}
    found = {
        "steps": values.get("benchmark_eval_steps", 10_000),
        "suite": _suite(values["benchmark_config"]),
        "metric": values.get("benchmark_checkpoint_metric", "wql"),
        "weights": [weights.get("wql", 0.0), weights.get("mase", 0.0)],
        "batch_size": values.get("benchmark_batch_size", 32),
    }
    if values.get("benchmark_tier2_config"):
        found["extended_steps"] = values.get("benchmark_tier2_eval_steps", 20_000)
        found["extended_suite"] = _suite(values["benchmark_tier2_config"])
    if values.get("benchmark_datasets_root"):
        found["data_root"] = values["benchmark_datasets_root"]
    else:
        notes.append("benchmark.data_root: say where its data sets lie (`foreloom data fetch SUITE --out FOLDER`)")
    return found


def _suite(path: str) -> str:
    """The name here of a list that came with TSM-Trainer, else the file itself."""
    from foreloom.evaluation import suites

    name = _SUITES.get(Path(path).stem, Path(path).stem)
    return name if name in suites.names() else path


def _problems(old: Located, values: Mapping[str, Any]) -> list[str]:
    """What makes the file no TSM-Trainer configuration, a sentence each."""
    known = [*RENAMED, *FOLDED, *DROPPED]
    problems = []
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            problems.append(f"{old.where(key)}: {key}: not a TSM-Trainer key.{hint}")
    if not values.get("random_init", True) and values.get("model_id") is None:
        problems.append(f"{old.where('random_init')}: random_init: false needs a model_id to start from.")
    for key in ("training_data_paths", "context_length", "prediction_length", "max_steps"):
        if not values.get(key):
            problems.append(f"{old.where('')}: {key}: is required and not given.")
    paths, weights = as_list(values.get("training_data_paths")), values.get("probability")
    if weights and len(weights) != len(paths):
        problems.append(f"{old.where('probability')}: probability: {len(weights)} numbers for {len(paths)} data paths.")
    patches = {key: values[key] for key in _PATCH_KEYS if key in values}
    if len(set(patches.values())) > 1:
        problems.append(f"{old.where(next(iter(patches)))}: the patch sizes must be equal, got {patches}.")
    schedule = values.get("lr_scheduler_type", _DEFAULT_SCHEDULE)
    if schedule not in SCHEDULES:
        problems.append(
            f"{old.where('lr_scheduler_type')}: lr_scheduler_type: {schedule!r} is not one of {', '.join(SCHEDULES)}."
        )
    return problems


def _sources(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    paths = as_list(values["training_data_paths"])
    weights = values.get("probability") or [1 / len(paths)] * len(paths)
    limit = values.get("max_train_series")
    sources = []
    for path, weight in zip(paths, weights, strict=True):
        source: dict[str, Any] = {"path": path, "weight": weight}
        if limit is not None:
            source["max_series"] = int(limit * weight)
        sources.append(source)
    return sources


def as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
