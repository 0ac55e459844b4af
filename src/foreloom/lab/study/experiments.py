"""Experiments as lists that add up: `gen_experim(32, label="32d") + gen_experim(64, label="64d")`.

An experiment is a dictionary {"name": folder, "subexperiments": [{"label": ..., "overrides": {...}}, ...]}; a list of
them becomes runs in `study`. An override is a setting by its own name (`learning_rate`, `activation`), by its dotted
one in the recipe (`optimizer.learning_rate`), or one of `settings.StudySettings`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

from foreloom.lab.labels import SWEEP_SUFFIX, with_learning_rate
from foreloom.lab.study.settings import check_names

NARROW_LR_SWEEP = [10**-3.0, 10**-2.5, 10**-2.0, 10**-1.5, 10**-1.0]
WIDE_LR_SWEEP = [10 ** (exponent / 2) for exponent in range(-8, 1)]
SWEEP_TOKENS = 129_000_000 // 8
"""The fewest of a run of a sweep, as in hansgundlach/Experimental_Progress."""
SWEEP_FRACTION = 0.05
"""Of the whole training's tokens, where that is more."""
TRANSFORMER, LSTM = "decoder-tiny", "lstm-tiny"
"""Recipes."""


class Subexperiment(TypedDict):
    """A run."""

    label: str
    overrides: dict[str, Any]


class Experiment(TypedDict):
    """Runs that leave their results in one folder."""

    name: str
    """Of the folder; empty, or `_lr_sweep`: what comes behind the study's own name."""
    subexperiments: list[Subexperiment]


def gen_experim(
    hidden_dim: int,
    label: str | None = None,
    folder_name: str | None = None,
    *,
    recipe: str = TRANSFORMER,
    **overrides: Any,
) -> list[Experiment]:
    """A run of a width: depth, heads, tokens and batch follow from it by the rules of `StudySettings`, and whatever is
    named in `overrides` is as it is given. `recipe` is a file or the name of a shipped recipe, of any family.

    ValueError for a name that neither a study nor the recipe knows, with the nearest that one does.
    """
    check_names(recipe, overrides)
    values = {"recipe": str(recipe), "hidden_dim": hidden_dim, **overrides}
    return [{"name": folder_name or "", "subexperiments": [{"label": label or f"{hidden_dim}d", "overrides": values}]}]


def gen_lstm_experim(hidden_dim: int, label: str | None = None, **options: Any) -> list[Experiment]:
    """`gen_experim` of an LSTM, whose depth stays that of the recipe unless a rule is named."""
    return gen_experim(hidden_dim, label, **{"recipe": LSTM, "depth_rule": "fixed", **options})


def create_multi_lr_experiments(
    experiments: Sequence[Experiment],
    learning_rates: Sequence[float],
    *,
    min_tokens: int = SWEEP_TOKENS,
    min_training_fraction: float = SWEEP_FRACTION,
) -> list[Experiment]:
    """Each run once a learning rate, in a folder with the suffix `_lr_sweep`. A run of the sweep is trained on
    `min_tokens`, on that share of the whole training's tokens where they are more, and never on more than the whole.
    Runs whose length is given in steps keep it."""
    budget = {"min_tokens": min_tokens, "token_fraction": min_training_fraction}
    return [
        {
            "name": experiment["name"].removesuffix(SWEEP_SUFFIX) + SWEEP_SUFFIX,
            "subexperiments": [
                {
                    "label": with_learning_rate(run["label"], rate),
                    "overrides": {**run["overrides"], "learning_rate": rate, **budget},
                }
                for run in experiment["subexperiments"]
                for rate in learning_rates
            ],
        }
        for experiment in _checked(experiments)
    ]


def create_multi_seed_experiments(experiments: Sequence[Experiment], seeds: Sequence[int]) -> list[Experiment]:
    """Each run once a seed: initial values, the order of the data and dropout hang on it."""
    return [
        {
            "name": experiment["name"],
            "subexperiments": [
                {"label": f"{run['label']}_seed_{seed}", "overrides": {**run["overrides"], "seed": seed}}
                for run in experiment["subexperiments"]
                for seed in seeds
            ],
        }
        for experiment in _checked(experiments)
    ]


def create_ladder_experiments(
    experiments: Sequence[Experiment], tokens: Sequence[int], *, cooldown: float = 0.2
) -> list[Experiment]:
    """Each run once a length, all of them for little more than the longest costs (`StudySettings.cooldown`). The
    longest may be held out and predicted: `foreloom lab fit STUDY --hold-out largest`."""
    return [
        {
            "name": experiment["name"],
            "subexperiments": [
                {
                    "label": f"{run['label']}_{count}_tokens",
                    "overrides": {**run["overrides"], "tokens": count, "cooldown": cooldown},
                }
                for run in experiment["subexperiments"]
                for count in sorted(tokens)
            ],
        }
        for experiment in _checked(experiments)
    ]


def subset_experiments(experiments: Sequence[Experiment], labels: Collection[str]) -> list[Experiment]:
    """The runs of these labels. ValueError for a label that no run has."""
    checked = _checked(experiments)
    known = [run["label"] for experiment in checked for run in experiment["subexperiments"]]
    if missing := [label for label in labels if label not in known]:
        raise ValueError(f"no run has the label {missing[0]!r}; there are {', '.join(known)}.")
    chosen: list[Experiment] = [
        {"name": one["name"], "subexperiments": [run for run in one["subexperiments"] if run["label"] in labels]}
        for one in checked
    ]
    return [one for one in chosen if one["subexperiments"]]


def flat(experiments: Sequence[Mapping[str, Any]], study: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(folder, label, overrides) of each run. ValueError for what is no list of experiments."""
    found = []
    for experiment in _checked(experiments):
        name = experiment["name"]
        folder = f"{study}{name}" if name in ("", SWEEP_SUFFIX) else name
        for run in experiment["subexperiments"]:
            found.append((folder, run["label"], dict(run["overrides"])))
    return found


def _checked(experiments: Sequence[Mapping[str, Any]]) -> list[Experiment]:
    """Experiments, which may have been written by hand, as `gen_experim` makes them."""
    found: list[Experiment] = []
    for experiment in experiments:
        if not isinstance(experiment, Mapping) or not isinstance(experiment.get("subexperiments"), list):
            raise ValueError(f"not an experiment, a dictionary with name and subexperiments: {experiment!r:.80}")
        name = experiment.get("name") or ""
        if not isinstance(name, str):
            raise ValueError(f"the name of an experiment is that of a folder, a text; got {name!r:.80}")
        runs: list[Subexperiment] = []
        for run in experiment["subexperiments"]:
            if not isinstance(run, Mapping) or not isinstance(run.get("label"), str):
                raise ValueError(f"not a run, a dictionary with label (a text) and overrides: {run!r:.80}")
            given = run.get("overrides") or run.get("config") or {}
            if not isinstance(given, Mapping):
                raise ValueError(f"{run['label']}: overrides are a dictionary, name: value; got {given!r:.80}")
            runs.append({"label": run["label"], "overrides": dict(given)})
        found.append({"name": name, "subexperiments": runs})
    return found
