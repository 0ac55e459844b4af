"""The candidates of a fit: the fine-tuning recipe of the model's family, whole weights and LoRA, at learning rates that
follow from how those before did, each as long as the budget allows; and the models between one and the model as it was.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from foreloom.config.shipped import shipped_recipes
from foreloom.models.family import ModelFamily
from foreloom.monitoring.metrics_file import read_metrics
from foreloom.run import load

FIRST = ("full", "lora")
"""What is trained first."""
PROBED = 100.0
"""The learning rate of the probe over that of the recipe, and where the first begin if it does no harm."""
APART = 10.0
"""From one learning rate to the next."""
NUM_PLANNED = 4
"""Candidates that the budget is parted for; what ends early leaves room for others."""
MOST_CANDIDATES = 8
LEAST_STEPS = 10
MOST_STEPS = 1000
MOST_PASSES = 20
"""Times that a candidate may see as many windows as there are steps for one to begin at."""
VALIDATIONS = 10
PROBE_STEPS = 4
BATCH_SIZE = 32
LONGEST_CONTEXT = 1024
SHARES = (1.0, 0.5)
"""How far from the model as it was towards the tuned one: all the way, and halfway."""


class Kind(NamedTuple):
    """What candidates differ in."""

    what: str
    """lora or full."""
    times: float
    """The learning rate over that of the recipe."""


@dataclass(frozen=True)
class Candidate:
    """A training to be made."""

    name: str
    kind: Kind
    recipe: str
    overrides: tuple[str, ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Candidate:
        """From what `settings_of` made of it."""
        return cls(settings["name"], Kind(*settings["kind"]), settings["recipe"], tuple(settings["overrides"]))


class Pace(NamedTuple):
    """What a training takes, in seconds."""

    start: float
    """Before the first step and after the last."""
    step: float
    validation: float

    def seconds_of(self, steps: int) -> float:
        """A training of so many, validations among them."""
        return self.start + (VALIDATIONS + 2) * self.validation + steps * self.step

    def steps_in(self, seconds: float) -> int:
        """That fit; none where not even the validations do."""
        return max(int((seconds - self.seconds_of(0)) / self.step), 0)


def recipe_of(family: ModelFamily) -> str:
    """The shipped recipe that fine-tunes models of a family. ValueError where there is none."""
    name = f"{family.name.replace('_', '-')}-finetune"
    if name not in shipped_recipes():
        raise ValueError(f"a model of the family {family.name} is not fitted: there is no recipe {name}.")
    return name


def shared_overrides(
    folder: Path, data: Path, *, horizon: int, context_length: int, min_past: int, device: str
) -> list[str]:
    """What every candidate has in common: the model, the data, and the lengths."""
    return [
        f"model.pretrained={json.dumps(str(folder))}",  # values are YAML: a folder may be called `a #2: [b]`
        f"data.sources.0.path={json.dumps(str(data))}",
        f"data.sources.0.holdout={horizon}",
        f"data.context_length={context_length}",
        f"data.prediction_length={horizon}",
        f"data.min_past={min_past}",
        "data.stride=null",
        "training.epochs=null",
        f"training.batch_size={BATCH_SIZE}",
        f"training.device={device}",
        "validation.max_windows=256",
        "monitoring.trackers=[none]",
        "monitoring.quiet=true",
    ]


def lasting(steps: int) -> list[str]:
    """Overrides of the length, with an early end and its best weights kept."""
    every = max(steps // VALIDATIONS, 1)
    return [
        f"training.steps={steps}",
        f"training.save_steps={steps}",
        f"validation.steps={every}",
        f"validation.patience={VALIDATIONS // 2}",  # much of the gain comes late, with the rate's decay
        "optimizer.warmup_ratio=0.1",
        f"monitoring.log_steps={every}",
    ]


def candidate(kind: Kind, recipe: str, shared: Sequence[str], steps: int) -> Candidate:
    """One of a kind, `steps` long."""
    settings = [*shared, *lasting(steps)]
    rate = kind.times * load(shipped_recipes()[recipe], settings, need_data=False).sections["optimizer"].learning_rate
    own = [f"optimizer.learning_rate={rate:g}"]
    own += ["adapter.kind=lora", "adapter.export=merged"] if kind.what == "lora" else []
    return Candidate(f"{kind.what}-{rate:g}", kind, recipe, (*settings, *own))


class Outcome(NamedTuple):
    """How a candidate did."""

    error: float
    """Over that of the model as it was, where candidates are chosen."""
    is_hot: bool
    """Did its held-out loss ever rise above that of the model as it was? Then no higher rate is better."""


def was_hot(run_dir: Path) -> bool:
    """See `Outcome`, of a finished run."""
    losses = [event["loss"] for event in read_metrics(run_dir).events if event["kind"] == "validation"]
    return not all(loss is not None and loss <= losses[0] for loss in losses)  # null is not finite


def following(outcomes: Mapping[Kind, Outcome], first_times: float) -> Kind | None:
    """What to try after those that were: what comes first, then beside the best by learning rate, first higher where
    that one was better than the model as it was and never hot. None where there is nothing left."""
    for what in FIRST:
        if (kind := Kind(what, first_times)) not in outcomes:
            return kind
    best = min(outcomes, key=lambda kind: outcomes[kind].error)
    up, down = (best._replace(times=best.times * times) for times in (APART, 1 / APART))
    may_rise = outcomes[best].error < 1 and not outcomes[best].is_hot
    near = [kind for kind in ([up, down] if may_rise else [down]) if kind not in outcomes]
    return near[0] if near and len(outcomes) < MOST_CANDIDATES else None


def pace_of(run_dir: Path, wall_seconds: float) -> Pace:
    """Of a finished probe of `PROBE_STEPS` steps with a validation before and after."""
    parts: dict[str, float] = {}
    for record in read_metrics(run_dir).steps:
        for name, seconds in record["seconds_by_part"].items():
            parts[name] = parts.get(name, 0.0) + seconds
    evaluation = parts.pop("evaluation", 0.0)
    training = sum(seconds for name, seconds in parts.items() if name != "checkpoint")
    return Pace(max(wall_seconds - training - evaluation, 0.0), training / PROBE_STEPS, evaluation / 2)


def in_budget(pace: Pace, seconds: float, scoring_seconds: float, num_values: int) -> tuple[int, int]:
    """(candidates, steps of each) that `seconds` allow, each scored for `scoring_seconds`: as many candidates as have
    enough steps. (0, 0) where not one has."""
    most = min(MOST_STEPS, max(MOST_PASSES * num_values // BATCH_SIZE, LEAST_STEPS))
    for num in range(NUM_PLANNED, 0, -1):
        steps = pace.steps_in(seconds / num - scoring_seconds)
        if steps >= (LEAST_STEPS if num == 1 else min(5 * LEAST_STEPS, most)):
            return num, min(steps, most)
    return 0, 0


def settings_of(candidate: Candidate) -> dict[str, Any]:
    """For a file."""
    return dataclasses.asdict(candidate)


def between(family: ModelFamily, base: Path, tuned: Path, share: float) -> nn.Module:
    """The model with the weights base + share * (tuned - base), on the CPU (Wortsman et al. 2022, "WiSE-FT"); what is
    not floating is the tuned one's. Both folders hold models of one shape."""
    module = family.load(tuned)
    if share == 1:
        return module.eval()
    of_base = family.load(base).state_dict()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.lerp(of_base[name], tensor, share))
    return module.eval()
