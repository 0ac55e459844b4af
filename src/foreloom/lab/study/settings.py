"""What an override of a study means: a setting of the recipe by a short name, or a rule of the study itself."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from foreloom.config.loader import Recipe, validate
from foreloom.config.located import Located, RecipeError
from foreloom.config.section import section
from foreloom.config.shipped import find_recipe
from foreloom.run.recipe import load

DepthRule = Literal["sqrt", "linear", "fixed", "aspect"]
Convention = Literal["total", "non-embedding"]
FROM_FILE = "from:"
"""`learning_rate="from:fit.json"`: what `foreloom lab lr-fit` found for the run's width."""
_Positive = Annotated[int, Field(ge=1)]


@section
class StudySettings:
    """Rules of a study: what of a run follows from its width, and how long it is trained."""

    hidden_dim: _Positive | None = None
    """Width of the residual stream; feed-forward and heads grow with it. Unset: the recipe's."""
    match_params: Annotated[float, Field(ge=1)] | str | None = None
    """Instead of hidden_dim: as wide as the model has so many parameters, within 2 %; or as many as that of another
    recipe. Layers stay the recipe's, or num_layers."""
    depth_rule: DepthRule | None = None
    """Layers of a width. sqrt: 2 at 32 wide, times the square root of the width over 32; linear: a layer each 16 of
    width; aspect: a layer each `aspect_ratio`; fixed: the recipe's. Unset: sqrt where hidden_dim is given."""
    aspect_ratio: Annotated[float, Field(gt=0)] = 64.0
    """Of depth_rule aspect: width over layers."""
    num_layers: _Positive | None = None
    """Layers, whatever the rule says."""
    num_heads: _Positive | None = None
    """Attention heads; they divide the width."""
    head_dim: _Positive | None = None
    """Width of a head, about: heads are the nearest number that divides the width evenly. Unset: the recipe's."""
    tokens: _Positive | None = None
    """Targets of the whole training, to the next whole step."""
    tokens_per_parameter: Annotated[float, Field(gt=0)] = 20.0
    """The same as a multiple of N, where neither tokens nor steps are given (Hoffmann et al., 2022: 20)."""
    n_convention: Convention = "total"
    """What N counts, in tokens_per_parameter and in 6ND. total: every parameter; non-embedding: without what reads
    tokens in and writes them out."""
    min_tokens: _Positive | None = None
    """Of a sweep: train on so many tokens only,"""
    token_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """or on this share of the whole training's, where that is more; never on more than the whole."""
    cooldown: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of a run in which its learning rate falls (schedule wsd). Runs that differ in nothing but their length then
    share the steps before, the shortest first; each is bit for bit what it would be alone."""
    gradient_accumulation_steps: _Positive | None = None
    """Forwards of a step on each device. With batch_size: rows of one of them; else the step's rows are divided."""
    use_mup: bool | None = None
    """parametrization.kind mup, or standard."""
    mup_scale_lr: bool = True
    """Learning rates of muP's groups; cannot be turned off, as that would not be muP."""
    num_processes: _Positive = 1
    """Processes that train a run together (DDP), a device each."""

    @property
    def num_matched(self) -> int | None:
        """`match_params` where it is a number; YAML takes 3.5e6 for text."""
        try:
            return round(float(self.match_params or ""))
        except ValueError:
            return None


OWN = tuple(field.name for field in dataclasses.fields(StudySettings))

ALIASES: Mapping[str, tuple[str, ...]] = {
    "seq_length": ("data.max_seq_length", "data.context_length"),
    "target_effective_batch_size": ("training.batch_size",),
    "target_gpu_memory_usage": ("training.target_memory_usage",),
    "optimizer": ("optimizer.name",),
    "lr_schedule": ("optimizer.schedule",),
    "warmup_frac": ("optimizer.warmup_ratio",),
    "min_lr_multiplier": ("optimizer.final_ratio",),
    "sgd_momentum": ("optimizer.momentum",),
    "adam_epsilon": ("optimizer.epsilon",),
    "grad_clip": ("training.max_grad_norm",),
    "norm_type": ("model.norm",),
    "pos_encoding": ("model.positions",),
    "init_scheme": ("model.init",),
    "mup_base_width": ("parametrization.base_width",),
    "max_tokens_training": ("tokens",),
    "token_limit": ("tokens",),
    "token_to_param_ratio": ("tokens_per_parameter",),
}
"""Names of hansgundlach/Experimental_Progress; of several settings the first that the recipe has."""
VALUES: Mapping[str, Mapping[Any, Mapping[str, Any]]] = {
    "optimizer.name": {"adam": {"optimizer.name": "adamw", "optimizer.weight_decay": 0.0}},
    "optimizer.schedule": {"cosine_warmup": {"optimizer.schedule": "cosine"}},
    "model.init": {
        "xavier_uniform": {"model.init": "xavier"},
        "kaiming_normal": {"model.init": "kaiming"},
        "transformer_scaled": {"model.init": "depth_scaled"},
        "bert_gpt": {"model.init": "gpt"},
    },
    "model.activation": {"swish": {"model.activation": "silu"}},
}
"""The same of values: setting -> what is written there -> what it means here."""
_ORDER = ("model", "training", "optimizer", "data", "parametrization")
"""Sections whose settings have a short name; the first that has it counts."""


@functools.lru_cache(maxsize=64)
def base_recipe(recipe: str) -> Recipe:
    """The recipe without overrides; its data need not be there."""
    return load(find_recipe(recipe).resolve(), need_data=False)


def fields_of(recipe: Recipe) -> dict[str, list[str]]:
    """Names of settings, by section."""
    return {name: [field.name for field in dataclasses.fields(one)] for name, one in recipe.sections.items()}


def dotted(name: str, recipe: Recipe) -> str:
    """The setting of the recipe (section.setting), or of the study, that an override means. ValueError for none."""
    known = fields_of(recipe)
    if "." in name:
        head, _, rest = name.partition(".")
        if head in known and rest.partition(".")[0] in known[head]:
            return name
    else:
        if name in OWN:
            return name
        for one in ALIASES.get(name, ()):
            if "." not in one or one.partition(".")[2] in known.get(one.partition(".")[0], ()):
                return one
        for part in _ORDER:
            if name in known.get(part, ()):
                return f"{part}.{name}"
    raise ValueError(_unknown(name, known, recipe))


def _unknown(name: str, known: Mapping[str, Iterable[str]], recipe: Recipe) -> str:
    short = [*OWN, *ALIASES, *(one for part in _ORDER for one in known.get(part, ()))]
    long = [f"{part}.{one}" for part in known for one in known[part]]
    close = difflib.get_close_matches(name, long if "." in name else short, n=1, cutoff=0.6)
    hint = f"Did you mean {close[0]}?" if close else f"`foreloom show {recipe.path.stem}` lists all."
    return f"unknown override {name!r}: neither a study nor the recipe {recipe.path.stem} has such a setting. {hint}"


def check_names(recipe: str, overrides: Mapping[str, Any]) -> None:
    """ValueError for an override that means nothing, as `dotted`; RecipeError for a recipe that is none."""
    base = base_recipe(recipe)
    for name in overrides:
        dotted(name, base)


def split(recipe: Recipe, overrides: Mapping[str, Any]) -> tuple[StudySettings, dict[str, Any]]:
    """The rules of the study among the overrides, and the settings of the recipe, dotted, in the order given.

    ValueError where one of them is given twice under two names; RecipeError where a rule's value will not do.
    """
    own: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in overrides.items():
        key = dotted(name, recipe)
        if key in names:
            raise ValueError(f"{names[key]} and {name} say the same thing; keep one.")
        names[key] = name
        if "." in key:
            meant = VALUES.get(key, {}).get(value, {key: value}) if isinstance(value, str) else {key: value}
            settings |= {one: given for one, given in meant.items() if one == key or one not in settings}
        else:
            own[key] = value
    rules, wrong = validate(StudySettings, own, Located({}), "")
    if wrong:
        raise RecipeError([line.removeprefix(": ") for line in wrong])
    if not rules.mup_scale_lr:
        raise ValueError("mup_scale_lr=False: muP without its learning rates is not muP; leave it out, or use_mup.")
    return rules, settings
