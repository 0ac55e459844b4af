"""What is a change worth? Variants of one model over seeds: means, their spread, and how much compute they save.

A multiplier says how many times the compute the base would need for the variant's loss, if L - E falls as C^-gamma: E
and gamma are assumed, and come with every table.
"""

from __future__ import annotations

import csv
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foreloom.lab.fit.frontier import loss_multiplier
from foreloom.lab.fit.runs import Study
from foreloom.lab.verdict import CONFIDENCE, FEWEST_SEEDS, Estimate, estimate

VARIANT, SEED = "variant", "seed"
LOSS_NAMES = ("final_val_loss", "validation_loss", "loss")


@dataclass(frozen=True)
class Variant:
    """One of a study."""

    name: str
    loss: Estimate
    deviation: float | None
    """Over seeds, n - 1 in the denominator; None for one."""
    diverged: tuple[str, ...]
    """Seeds whose loss was not finite: left out of the mean, and told."""
    multiplier: float | None
    multiplier_interval: tuple[float, float] | None
    """Of the seeds' spread (Welch's t); None where a spread is not known."""


def read_variants(path: Path) -> dict[str, dict[str, float]]:
    """Loss by variant and seed, of a CSV with columns `variant`, `seed` and a final loss; NaN for an empty one.

    ValueError lists the columns there are, and names a line whose loss is no number or that is there twice.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        reader.fieldnames = header = [name.strip() for name in reader.fieldnames or []]
        loss = next((name for name in LOSS_NAMES if name in header), None)
        if loss is None or VARIANT not in header or SEED not in header:
            raise ValueError(
                f"{path}: expected columns {VARIANT}, {SEED} and one of {', '.join(LOSS_NAMES)}; there are "
                f"{', '.join(header) or 'none'}."
            )
        found: dict[str, dict[str, float]] = {}
        for row in reader:
            variant, seed, text = (str(row[name] or "").strip() for name in (VARIANT, SEED, loss))
            of_seed = found.setdefault(variant, {})
            if seed in of_seed:
                raise ValueError(f"{path}:{reader.line_num}: seed {seed} of {variant} is there twice; keep one.")
            try:
                of_seed[seed] = float(text) if text else math.nan
            except ValueError:
                raise ValueError(f"{path}:{reader.line_num}: {text!r} is no loss.") from None
    return found


def variants_of(study: Study) -> dict[str, dict[str, float]]:
    """The same of a study's runs: a variant is a label without its seed. ValueError where two of one have one seed."""
    found: dict[str, dict[str, float]] = {}
    for run in (*study.runs, *study.left_out):
        if run.ending != "unfinished":
            name = re.sub(r"_seed_?\d+", "", run.label)
            loss = run.loss if run.ending == "finished" else math.nan
            of_seed, seed = found.setdefault(name, {}), str(run.facts.get("seed", run.label))
            if seed in of_seed:
                raise ValueError(
                    f"{study.path}: {run.label} is a second run of {name} with seed {seed}; remove one of them."
                )
            of_seed[seed] = loss
    return found


def compare_variants(
    losses: Mapping[str, Mapping[str, float]], base: str, *, E: float | None = None, gamma: float | None = None
) -> list[Variant]:
    """Every variant, the best first; multipliers over `base` where `E` and `gamma` are assumed.

    ValueError for a base that is not there, and one that has no finite loss.
    """
    if base not in losses:
        raise ValueError(f"no variant {base!r} to compare with; there are {', '.join(losses)}.")
    finite = {name: [x for x in of.values() if math.isfinite(x)] for name, of in losses.items()}
    if not finite[base]:
        raise ValueError(f"no seed of {base!r} has a finite loss: nothing can be compared with it.")
    found = []
    for name, of_seed in losses.items():
        values = finite[name]
        if not values:
            continue
        multiplier = interval = None
        if E is not None and gamma is not None:
            multiplier = loss_multiplier(statistics.fmean(finite[base]), statistics.fmean(values), E=E, gamma=gamma)
            interval = _interval(finite[base], values, multiplier, E=E, gamma=gamma) if name != base else None
        found.append(
            Variant(
                name,
                estimate(values),
                statistics.stdev(values) if len(values) > 1 else None,
                tuple(seed for seed, value in of_seed.items() if not math.isfinite(value)),
                multiplier,
                interval,
            )
        )
    return sorted(found, key=lambda one: one.loss.mean)


def _interval(
    base: Sequence[float], variant: Sequence[float], multiplier: float, *, E: float, gamma: float
) -> tuple[float, float] | None:
    """Of log multiplier = (log(base - E) - log(variant - E)) / gamma, with Welch's degrees of freedom."""
    from scipy import stats

    if min(len(base), len(variant)) < 2 or not math.isfinite(multiplier):
        return None
    parts = [
        (statistics.variance(values) / len(values) / (gamma * (statistics.fmean(values) - E)) ** 2, len(values) - 1)
        for values in (base, variant)
    ]
    variance = sum(part for part, _ in parts)
    if not variance:  # of two seeds that may be chance
        return (multiplier, multiplier) if min(len(base), len(variant)) >= FEWEST_SEEDS else None
    freedom = variance**2 / sum(part**2 / num for part, num in parts)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * math.sqrt(variance)
    return multiplier * math.exp(-half), multiplier * math.exp(half)
