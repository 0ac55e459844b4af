"""The candidates of a fit: the fine-tuning recipe of the model's family, whole weights and LoRA, at a few learning
rates, each as long as the budget allows; and the models between one and the model as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from foreloom.config.shipped import shipped_recipes
from foreloom.models.family import ModelFamily
from foreloom.monitoring.metrics_file import read_metrics
from foreloom.run import load

KINDS = (("lora", 10.0), ("full", 1.0), ("full", 10.0), ("lora", 1.0))
"""What is trained, and the learning rate over that of the recipe; the first are tried first."""
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


@dataclass(frozen=True)
class Candidate:
    """A training to be made."""

    name: str
    recipe: str
    overrides: tuple[str, ...]


class Pace(NamedTuple):
    """What a training takes, in seconds."""

    start: float
    """Before the first step and after the last."""
    step: float
    validation: float

    def steps_in(self, seconds: float) -> int:
        """That fit, validations among them; none where not even they do."""
        left = seconds - self.start - (VALIDATIONS + 2) * self.validation
        return max(int(left / self.step), 0)


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
        f"model.pretrained={folder}",
        f"data.sources.0.path={data}",
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
        "validation.patience=3",
        f"monitoring.log_steps={every}",
    ]


def plan(recipe: str, shared: Sequence[str], num: int, steps: int) -> list[Candidate]:
    """The first `num` of the candidates, `steps` long."""
    settings = [*shared, *lasting(steps)]
    rate = load(shipped_recipes()[recipe], settings, need_data=False).sections["optimizer"].learning_rate
    planned = []
    for kind, times in KINDS[:num]:
        own = [f"optimizer.learning_rate={times * rate:g}"]
        own += ["adapter.kind=lora", "adapter.export=merged"] if kind == "lora" else []
        planned.append(Candidate(f"{kind}-{times * rate:g}", recipe, (*settings, *own)))
    return planned


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
    for num in range(len(KINDS), 0, -1):
        steps = pace.steps_in(seconds / num - scoring_seconds)
        if steps >= (LEAST_STEPS if num == 1 else min(5 * LEAST_STEPS, most)):
            return num, min(steps, most)
    return 0, 0


def settings_of(candidate: Candidate) -> dict[str, Any]:
    """For a file."""
    return {"name": candidate.name, "recipe": candidate.recipe, "overrides": list(candidate.overrides)}


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
