"""What of a study will be regretted: told before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from foreloom.config.loader import flatten, plain
from foreloom.lab.fit.runs import SAME_RATIO
from foreloom.lab.labels import learning_rate_in
from foreloom.lab.study.resolve import Planned
from foreloom.run.recipe import load


def lint(planned: Sequence[Planned]) -> list[str]:
    """A sentence for each thing that is wrong with a study's runs, folder by folder."""
    found = []
    for folder in dict.fromkeys(one.folder for one in planned):
        its = [one for one in planned if one.folder == folder]
        found += [f"{folder}: {sentence}" for sentence in (*_silent_labels(its), *_mixed(its), *_one_ratio(its))]
    return found


def _silent_labels(planned: Sequence[Planned]) -> list[str]:
    """Settings that differ between runs and that a label does not tell."""
    names = dict.fromkeys(name for one in planned for name in one.given)
    found = []
    for name in names:
        values = [one.given.get(name) for one in planned]
        if all(value == values[0] for value in values):
            continue
        silent = [one.label for one in planned if name in one.given and not _tells(one.label, name, one.given[name])]
        if silent:
            listed = ", ".join(dict.fromkeys(str(value) for value in values if value is not None))
            found.append(f"{name} differs ({listed}), and the label does not tell it: {', '.join(silent)}.")
    return found


def _tells(label: str, name: str, value: Any) -> bool:
    if name == "learning_rate" and learning_rate_in(label) == value:
        return True
    if isinstance(value, bool):
        return name.removeprefix("use_").rpartition(".")[2] in label
    if isinstance(value, int | float):  # a 1 is not told by the 128 of 128d
        return any(re.search(rf"(?<![\d.]){re.escape(text)}(?!\.?\d)", label) for text in (str(value), f"{value:g}"))
    return any(text.lower() in label.lower() for text in (str(value), str(value).removesuffix("-tiny"))) or (
        name == "recipe"
    )


def _mixed(planned: Sequence[Planned]) -> list[str]:
    """Runs whose losses are of other data, or of another kind of step."""
    found = []
    of_key: dict[str, dict[str, list[str]]] = {}
    for one in planned:
        sections = load(one.recipe, one.overrides, need_data=False).sections
        facts = flatten({"data": plain(sections["data"])}) | {"rows of a step": sections["training"].batch_size}
        facts = {name: value for name, value in facts.items() if name not in ("data.num_prefetch", "data.packing")}
        for name, value in facts.items():
            of_key.setdefault(name, {}).setdefault(str(value), []).append(one.label)
    asked = {name for one in planned for name in one.given}
    for name, labels_of in of_key.items():
        short = name.rpartition(".")[2]
        if len(labels_of) > 1 and not {name, short} & asked:
            told = "; ".join(f"{value} in {labels[0]}" for value, labels in labels_of.items())
            found.append(f"the base configurations differ in {name} ({told}), which nothing in the study asks for.")
    return found


def _one_ratio(planned: Sequence[Planned]) -> list[str]:
    """Sizes that are all trained on as many tokens, or as many a parameter."""
    known = [one.facts for one in planned if one.facts.get("planned_tokens")]
    sizes, lengths = ({facts[name] for facts in known} for name in ("num_parameters", "planned_tokens"))
    if len(sizes) < 3:
        return []
    if len(lengths) == 1 and len(known) == len(planned):
        return [
            f"D is {min(lengths):,} at all {len(sizes)} sizes: no L(N, D) can be fitted, as nothing tells what more "
            "tokens do from the loss that stays. Vary tokens, or leave them to tokens_per_parameter."
        ]
    ratios = [facts["planned_tokens"] / facts["num_parameters"] for facts in known]
    if max(ratios) > min(ratios) * (1 + SAME_RATIO):
        return []
    return [
        f"D / N is {max(ratios):.3g} at all {len(sizes)} sizes: a power law of loss in compute can be "
        "fitted, but no L(N, D), as nothing tells what more tokens do from what more parameters do. Vary "
        "tokens_per_parameter."
    ]
