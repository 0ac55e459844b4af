"""A run of a study, resolved: the recipe's settings that follow from its overrides, and why each is what it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from foreloom.config.loader import Recipe, plain
from foreloom.config.located import RecipeError
from foreloom.data.loader import BatchLoader
from foreloom.lab.fit.learning_rate import value_from
from foreloom.lab.study.settings import FROM_FILE, StudySettings, base_recipe, split
from foreloom.models import registry
from foreloom.models.common.count import ParameterKind
from foreloom.models.match import match_parameters, totals_of
from foreloom.run.parametrize import depth_of, redepthed, scaling_of, width_of
from foreloom.run.recipe import find_files, load, shapes_of

WIDTH_OF_TWO_LAYERS, WIDTH_PER_LAYER = 32, 16
"""Of the rules sqrt and linear, which meet there."""
LEARNING_RATE = "optimizer.learning_rate"
HEADS = ("num_heads", "num_attention_heads")
"""What families call their number of heads."""
MOST_ROWS = 1000
"""Of a CSV, about: longer runs are logged every so many steps."""
FEWEST_VALIDATIONS, MOST_VALIDATIONS = 4, 20
VALIDATION_SHARE = 0.25
"""Of a training's compute, the most that its validations take where there is as much held out as they may read."""
NUM_COUNTED_ROWS = 256


@dataclass(frozen=True)
class Planned:
    """A run, as far as it is known before it is trained."""

    folder: str
    """Of the results: the study's name."""
    label: str
    recipe: Path
    given: Mapping[str, Any]
    """The overrides as they were written."""
    overrides: tuple[str, ...]
    """All that is set on top of the recipe: `section.setting=value`."""
    reasons: Mapping[str, str]
    """Setting -> where its value comes from."""
    num_processes: int
    facts: Mapping[str, Any]
    """Sizes and lengths, under the names that config_<label>.json has them by."""


@dataclass
class _Settings:
    """Dotted settings, each with its reason; what comes later wins."""

    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, value: Any, reason: str) -> None:
        self.values[key], self.reasons[key] = value, reason

    @property
    def overrides(self) -> tuple[str, ...]:
        return tuple(f"{key}={as_yaml(value)}" for key, value in self.values.items())


def as_yaml(value: Any) -> str:
    """A value on one line, as an override takes it."""
    return yaml.safe_dump(plain(value), default_flow_style=True, width=math.inf).removesuffix("...\n").strip()


def resolve(folder: str, label: str, overrides: Mapping[str, Any]) -> Planned:
    """The settings of a run; its data are opened only where its length in steps hangs on what a row of them holds.

    ValueError, which begins with the label, for whatever does not fit.
    """
    try:
        return _resolve(folder, label, overrides)
    except RecipeError as error:
        raise RecipeError([f"{label}: {problem}" for problem in error.problems]) from None
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error


def _resolve(folder: str, label: str, overrides: Mapping[str, Any]) -> Planned:
    given = dict(overrides)
    recipe = given.pop("recipe", None)
    if recipe is None:
        raise ValueError("no recipe is named; write recipe: decoder-tiny, or another file or shipped recipe.")
    base = base_recipe(str(recipe))
    rules, asked = split(base, given)
    settings = _Settings()
    _shape(settings, base, rules)
    if rules.use_mup is not None:
        settings.put("parametrization.kind", "mup" if rules.use_mup else "standard", "use_mup")
    for key, value in asked.items():
        settings.put(key, value, "given")
    if "optimizer.warmup_steps" in asked and "optimizer.warmup_ratio" not in asked:
        settings.put("optimizer.warmup_ratio", 0.0, "warmup_steps are given")
    _batch(settings, base, rules)
    rate = settings.values.pop(LEARNING_RATE, None)
    sized = load(base.path, settings.overrides, need_data=False)
    num_parameters, num_non_embedding = count(sized)
    if rate is not None:
        _learning_rate(settings, rate, facts_of(sized, rules).get("hidden_dim"), num_parameters)
    _length(settings, sized, rules, num_parameters if rules.n_convention == "total" else num_non_embedding)
    steps = settings.values.get("training.steps", sized.sections["training"].steps)
    _cooldown(settings, sized, rules, steps)
    _watch(settings, sized, steps)
    final = load(base.path, settings.overrides, need_data=False)
    facts = {"num_parameters": num_parameters, "num_non_embedding": num_non_embedding}
    facts |= facts_of(final, rules)
    if facts["num_steps"] and not find_files(final, need_data=True)[1]:
        facts["planned_tokens"] = round(facts["num_steps"] * terms_per_step(final))
    return Planned(
        folder, label, base.path, overrides, settings.overrides, settings.reasons, rules.num_processes, facts
    )


def _shape(settings: _Settings, base: Recipe, rules: StudySettings) -> None:
    """Width, depth and heads, as settings of the model section."""
    names = ("hidden_dim", "match_params", "depth_rule", "num_layers", "num_heads", "head_dim")
    if not any(getattr(rules, name) for name in names):
        return
    section = base.sections["model"]
    family = registry.get(section.family)
    hooks = scaling_of(family, section)
    was, width = section.new_values(), rules.hidden_dim or width_of(family, section)
    width_why = "hidden_dim"
    if rules.match_params:
        width, width_why = _matched_width(base, rules)
    changed = section
    if width != was[hooks.width]:
        changed = hooks.resized(section, width, "more")
    rule = rules.depth_rule or ("sqrt" if rules.hidden_dim else "fixed")
    depth = rules.num_layers or layers_of(rule, width, depth_of(family, section), rules.aspect_ratio)
    changed = redepthed(family, changed, depth)
    values = changed.new_values()
    heads = next((name for name in HEADS if name in was), None)
    if heads and (rules.num_heads or rules.head_dim):
        values[heads] = rules.num_heads or fitting_heads(width, rules.head_dim or width)
        if "d_kv" in values:
            values["d_kv"] = rules.head_dim or width // values[heads]
    why = f"follows from the width {width}"
    deep = f"num_layers {depth}" if rules.num_layers else f"depth_rule {rule} at width {width}"
    reasons = dict.fromkeys(hooks.depths, deep) | {hooks.width: width_why}
    for name, value in values.items():
        if value != was.get(name):
            settings.put(f"model.{name}", value, reasons.get(name, why))


def _matched_width(base: Recipe, rules: StudySettings) -> tuple[int, str]:
    """The width at which the recipe's model has as many parameters as `match_params` says, and a word on it."""
    if rules.hidden_dim or rules.depth_rule not in (None, "fixed"):
        raise ValueError("match_params finds the width, at the recipe's layers: leave hidden_dim and depth_rule out.")
    section, data = base.sections["model"], base.sections["data"]
    family = registry.get(section.family)
    target = rules.num_matched
    if target is None:
        other = base_recipe(str(rules.match_params))
        model = other.sections["model"]
        target = totals_of(registry.get(model.family), model, other.sections["data"])
    if rules.num_layers:
        section = redepthed(family, section, rules.num_layers)
    found = match_parameters(family, section, data, target, multiple_of=2)
    of = f"{target:,}" if isinstance(target, int) else f"the {target.total:,} of {rules.match_params}"
    return found.width, f"match_params: {found.totals.total:,} parameters for {of} ({found.error:+.2%})"


def layers_of(rule: str, width: int, own: int, aspect_ratio: float) -> int:
    """Layers of a width; `own` are the recipe's."""
    layers = {
        "sqrt": 2 * math.sqrt(width / WIDTH_OF_TWO_LAYERS),
        "linear": width / WIDTH_PER_LAYER,
        "aspect": width / aspect_ratio,
        "fixed": own,
    }[rule]
    return max(round(layers), 1)


def fitting_heads(width: int, head_dim: int) -> int:
    """The most heads, up to width / head_dim, that divide the width into heads of an even width; else any that divide
    it."""
    most = max(round(width / head_dim), 1)
    divide = [number for number in range(1, most + 1) if width % number == 0]
    return max((number for number in divide if width // number % 2 == 0), default=divide[-1])


def _learning_rate(settings: _Settings, rate: Any, width: int | None, num_parameters: int) -> None:
    """As given, or by the law of a file that `foreloom lab lr-fit` wrote."""
    if isinstance(rate, str) and rate.startswith(FROM_FILE):
        path = Path(rate.removeprefix(FROM_FILE))
        if not path.is_file():
            raise ValueError(f"learning_rate {rate}: there is no file {path}; `foreloom lab lr-fit SWEEP` writes one.")
        why = f"{rate} at width {width} and N {num_parameters:,}"
        rate = value_from(path, width=width, num_parameters=num_parameters)
        settings.put(LEARNING_RATE, rate, why)
    else:
        settings.put(LEARNING_RATE, rate, "given")


def _batch(settings: _Settings, base: Recipe, rules: StudySettings) -> None:
    """Rows of a step, of all processes, and of a forward: batch x accumulation x processes is always the former."""
    steps, ranks = rules.gradient_accumulation_steps, rules.num_processes
    if steps is None:
        return
    rows = settings.values.get("training.batch_size", base.sections["training"].batch_size)
    parts = steps * ranks
    if rows % parts:
        below = rows // parts * parts
        raise ValueError(
            f"{rows} rows of a step are no multiple of gradient_accumulation_steps {steps} x num_processes {ranks}; "
            f"the nearest that are: {below} and {below + parts}." if below else
            f"{rows} rows of a step are fewer than gradient_accumulation_steps {steps} x num_processes {ranks}; the "
            f"nearest that can be divided: {parts}."
        )  # fmt: skip
    why = f"{rows} rows / (gradient_accumulation_steps {steps} x num_processes {ranks})"
    settings.put("training.micro_batch_size", rows // parts, why)


def count(recipe: Recipe) -> tuple[int, int]:
    """N of all parameters; and of those that are neither read in by (an embedding, the first projection) nor written
    out by (the head)."""
    model = shapes_of(recipe)
    kinds = registry.get(recipe.sections["model"].family).kinds(model)
    hidden = (ParameterKind.HIDDEN, ParameterKind.VECTOR)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return sum(sizes.values()), sum(size for name, size in sizes.items() if kinds[name] in hidden)


def _length(settings: _Settings, recipe: Recipe, rules: StudySettings, num_parameters: int) -> None:
    """training.steps of a budget of tokens, unless steps or epochs are given or nothing of the study says how many."""
    is_by_steps = {"training.steps", "training.epochs"} & settings.values.keys()
    lengths = {"tokens", "hidden_dim", "match_params", "tokens_per_parameter", "token_fraction"}
    if is_by_steps or not lengths & _given(rules):
        return
    tokens = rules.tokens or num_parameters * rules.tokens_per_parameter
    why = "tokens" if rules.tokens else f"{rules.tokens_per_parameter:g} x N ({rules.n_convention})"
    if rules.min_tokens or rules.token_fraction:
        part = max(rules.min_tokens or 0, tokens * (rules.token_fraction or 0))
        why = f"the larger of {rules.min_tokens or 0:,} and {rules.token_fraction or 0:g} of {why}, and no more than it"
        tokens = min(tokens, part)
    tokens = round(tokens, 6)  # 0.07 of 100 is to be 7
    a_step = terms_per_step(recipe)
    steps = max(math.ceil(round(tokens / a_step, 6)), 1)
    if recipe.sections["training"].epochs is not None:
        settings.put("training.epochs", None, "the length is given in steps")
    settings.put("training.steps", steps, f"{math.ceil(tokens):,} tokens ({why}) / {a_step:g} a step")


def _cooldown(settings: _Settings, recipe: Recipe, rules: StudySettings, num_steps: int | None) -> None:
    """The steps of a rung in which its learning rate falls."""
    if rules.cooldown is None:
        return
    optimizer = recipe.sections["optimizer"]
    if num_steps is None:
        raise ValueError("cooldown: the length is given in epochs; give tokens, or steps.")
    if optimizer.warmup_ratio:
        raise ValueError("cooldown: a share of each length is another warm-up for each; give warmup_steps.")
    if recipe.sections["validation"].restores:
        raise ValueError(
            "cooldown: the recipe ends with its best weights, and a rung with its last; add validation.patience: 0 and "
            "validation.restore_best: null."
        )
    steps = max(round(rules.cooldown * num_steps), 1)
    if num_steps - steps <= optimizer.warmup_steps:
        raise ValueError(
            f"cooldown: {num_steps:,} steps with {steps:,} of cooldown and {optimizer.warmup_steps:,} of warm-up leave "
            "nothing between; train longer, or warm up for less."
        )
    settings.put("optimizer.schedule", "wsd", "cooldown")
    settings.put("optimizer.decay_ratio", 0.0, "cooldown")
    settings.put("optimizer.decay_steps", steps, f"cooldown {rules.cooldown:g} of {num_steps:,} steps")


def _given(rules: StudySettings) -> set[str]:
    """Names of the rules that are not the default."""
    return {one.name for one in dataclasses.fields(rules) if getattr(rules, one.name) != one.default}


def terms_per_step(recipe: Recipe) -> float:
    """Targets in the loss of a step: all tokens of blocks of text; of other data the mean of the first steps, by the
    model's own count, for which the data are opened. ValueError where they are not there."""
    data, rows = recipe.sections["data"], recipe.sections["training"].batch_size
    if getattr(data, "packing", None) == "blocks":
        return rows * data.max_seq_length
    if missing := find_files(recipe, need_data=True)[1]:
        raise RecipeError([*missing, "Only the data say how many targets a step has; give steps, or the data."])
    key = f"{recipe.sections['model'].family} {rows} {data}"
    if key not in _COUNTED:
        _COUNTED[key] = _count_terms(recipe)
    return _COUNTED[key]


_COUNTED: dict[str, float] = {}
"""By family, rows and data: the size of a model has no say in it."""


def _count_terms(recipe: Recipe) -> float:
    model, data, training = (recipe.sections[name] for name in ("model", "data", "training"))
    family = registry.get(model.family)
    dataset = data.open(training.seed, batch_size=training.batch_size)
    loader = BatchLoader(dataset, batch_size=training.batch_size, num_prefetch=0)
    module = family.build(model, data)
    family.initialize(module, training.seed)
    total, first, num_steps = 0.0, 0, max(1, NUM_COUNTED_ROWS // training.batch_size)
    with torch.no_grad():
        for _ in range(num_steps):
            batch = loader.batch(first)
            first = batch.next_sample
            for micro_batch in batch.micro_batches:
                total += float(module(**family.batch(module, micro_batch, torch.device("cpu"))).objective.count)
    if not total:
        raise ValueError("the first rows of the data hold no target, so tokens cannot be counted; give steps.")
    return total / num_steps


def _watch(settings: _Settings, recipe: Recipe, num_steps: int | None) -> None:
    """How often a run is logged and validated, unless that is given."""
    validation = recipe.sections["validation"]
    if num_steps is None:
        return
    every = -(-num_steps // MOST_ROWS)
    if "monitoring.log_steps" not in settings.values:
        settings.put("monitoring.log_steps", every, f"a row of the CSV every step, of long runs {MOST_ROWS} rows")
    if "monitoring.trackers" not in settings.values:
        settings.put("monitoring.trackers", ["none"], "the CSV is made of metrics.jsonl")
    if getattr(validation, "prompts", ()) and "validation.prompts" not in settings.values:
        settings.put("validation.prompts", [], "texts are for people who watch one run")
    if "validation.steps" not in settings.values:
        log_steps = settings.values["monitoring.log_steps"]
        # A row that is validated costs a forward, a third of what one that is trained on costs.
        affordable = VALIDATION_SHARE * num_steps * recipe.sections["training"].batch_size * 3 / validation.max_windows
        number = round(min(max(affordable, FEWEST_VALIDATIONS), MOST_VALIDATIONS))
        steps = max(num_steps // number // log_steps, 1) * log_steps
        asked = dataclasses.replace(validation, steps=steps)
        if not any(one.key == "validation.steps" for one in recipe.sections["data"].contradictions(asked)):
            settings.put("validation.steps", steps, f"about {number} times a run")


def facts_of(recipe: Recipe, rules: StudySettings) -> dict[str, Any]:
    """What the sections say, under the names of config_<label>.json."""
    model, training = recipe.sections["model"], recipe.sections["training"]
    family = registry.get(model.family)
    facts: dict[str, Any] = {
        "family": model.family,
        "learning_rate": recipe.sections["optimizer"].learning_rate,
        "effective_batch_size": training.batch_size,
        "num_steps": training.steps,
        "seed": training.seed,
        "n_convention": rules.n_convention,
        "num_cooldown_steps": recipe.sections["optimizer"].decay_steps if rules.cooldown else 0,
    }
    if family.scaling is not None and model.pretrained is None:
        values = model.new_values()
        facts |= {"hidden_dim": width_of(family, model), "num_layers": depth_of(family, model)}
        facts["num_heads"] = next((values[name] for name in HEADS if name in values), None)
    return facts
