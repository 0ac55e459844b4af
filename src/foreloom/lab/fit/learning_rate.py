"""Which learning rate is best at each size, and how does it move? A parabola of the final loss in the log of the rate
per size, gates for when its lowest point is an answer, what to run next where it is none, and power laws over size.

The same holds of batch sizes. `fit.json`, which this writes, is what `learning_rate="from:fit.json"` reads.

Axes: P values swept, K sizes.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foreloom.files import read_json, strict_json, write_text
from foreloom.lab.fit.runs import SAME_RATIO, Run, Study

PLATEAU = 1.0
"""Above the lowest loss, in its unit (nats for text), from where on a run counts as diverged; at least three must be
left."""
INSIDE_DECADES = 0.1
"""How far inside of what was swept a vertex must lie."""
LEAST_R2 = 0.9
NUM_PROPOSED = 3

Over = Literal["width", "num_parameters"]
Swept = Literal["learning_rate", "batch_size"]


@dataclass(frozen=True)
class Basin:
    """The losses of one size over a swept value, and its best."""

    width: float | None
    num_parameters: float
    value_P: tuple[float, ...]
    """Ascending, one each; without those that diverged."""
    loss_P: tuple[float, ...]
    """Means over seeds."""
    num_dropped: int
    """Values whose loss was not finite, or a nat above the lowest."""
    curvature: float | None
    """Of the loss over the natural log of the value; None where no parabola can be drawn."""
    vertex: float | None
    r2: float | None
    argmin: float
    estimator: Literal["vertex", "argmin"]
    reason: str
    """Why the argmin and not the vertex."""
    edge: Literal["", "low", "high"]
    """Where the argmin is the lowest or the highest value tried: the best may lie outside."""
    proposed: tuple[float, ...]
    """Values to run next."""

    @property
    def best(self) -> float:
        return self.vertex if self.estimator == "vertex" and self.vertex is not None else self.argmin


@dataclass(frozen=True)
class Trend:
    """value = coefficient * size^exponent, least squares in logs."""

    over: Over
    coefficient: float
    exponent: float
    r2: float
    num_sizes: int
    exponent_se: float | None = None
    """None for fewer than three sizes."""

    def at(self, size: float) -> float:
        return self.coefficient * size**self.exponent


@dataclass(frozen=True)
class RateFit:
    """What a sweep says."""

    swept: Swept
    basins: tuple[Basin, ...]
    trends: Mapping[str, Trend]
    """Of the estimator each size allows, by what they are over."""
    argmin_trends: Mapping[str, Trend]
    doubts: tuple[str, ...]


def fit_basin(
    values: Sequence[float], losses: Sequence[float], *, width: float | None = None, num_parameters: float = math.nan
) -> Basin:
    """Of one size; a value tried with several seeds stands there several times. ValueError where nothing is finite."""
    of_value: dict[float, list[float]] = {}
    for value, loss in zip(values, losses, strict=True):
        of_value.setdefault(float(value), []).append(loss if loss is not None else math.nan)
    tried = sorted(of_value)
    means = {value: statistics.fmean(of_value[value]) for value in tried}
    finite = [value for value in tried if math.isfinite(means[value])]
    if not finite:
        size = f"N = {num_parameters:,.0f}: " if math.isfinite(num_parameters) else ""
        raise ValueError(
            f"width {width:g}: every run of {len(tried)} diverged; sweep lower learning rates."
            if width
            else f"{size}every run of {len(tried)} diverged; sweep lower values."
        )
    lowest = min(means[value] for value in finite)
    kept = [value for value in finite if means[value] <= lowest + PLATEAU]
    kept = kept if len(kept) >= 3 else finite
    argmin = min(kept, key=means.__getitem__)
    edge: Literal["", "low", "high"] = "low" if argmin == tried[0] else "high" if argmin == tried[-1] else ""
    curvature = vertex = r2 = None
    if len(kept) >= 3:
        curvature, vertex, r2 = _parabola(np.log(kept), np.array([means[value] for value in kept]))
    reason = _why_not(kept, curvature, vertex, r2)
    best = vertex if not reason and vertex is not None else argmin
    return Basin(
        width=width,
        num_parameters=num_parameters,
        value_P=tuple(kept),
        loss_P=tuple(means[value] for value in kept),
        num_dropped=len(tried) - len(kept),
        curvature=curvature,
        vertex=vertex,
        r2=r2,
        argmin=argmin,
        estimator="argmin" if reason else "vertex",
        reason=reason,
        edge=edge,
        proposed=_proposed(tried, best, edge),
    )


def fit_rates(study: Study, swept: Swept = "learning_rate") -> RateFit:
    """A basin for each size of a study's runs and the trends over them.

    A batch size is judged by the best learning rate that was tried with it. ValueError where nothing was swept.
    """
    runs = [run for run in (*study.runs, *study.left_out) if run.ending != "unfinished" and swept in run.facts]
    if not runs:
        raise ValueError(
            f"{study.path}: no run says its {swept.replace('_', ' ')}, neither in config_<label>.json nor in its name "
            "(64d_lr_0.001)."
        )
    sizes: dict[tuple[Any, float], list[Run]] = {}
    for run in runs:
        size = round(run.num_parameters) if run.width is None else None
        sizes.setdefault((run.width, size or 0.0), []).append(run)
    basins, doubts = [], []
    for (width, _), group in sorted(
        sizes.items(), key=lambda item: statistics.median(run.num_parameters for run in item[1])
    ):
        name = f"width {width:g}" if width is not None else f"N = {group[0].num_parameters:,.0f}"
        group, told = _comparable(group, swept)
        doubts += [f"{name}: {one}" for one in told]
        values, losses = _swept_losses(group, swept)
        if len(set(values)) < 2:
            doubts.append(f"{name}: one {swept.replace('_', ' ')} only")
            continue
        num_parameters = statistics.median(run.num_parameters for run in group)
        try:
            basin = fit_basin(values, losses, width=width, num_parameters=num_parameters)
        except ValueError as error:  # all diverged, of which the other sizes know nothing
            doubts.append(str(error).removesuffix("."))
            continue
        basins.append(basin)
        if basin.edge:
            where = "lowest" if basin.edge == "low" else "highest"
            doubts.append(
                f"{name}: the best is the {where} value tried, {basin.argmin:.4g}; run "
                + ", ".join(f"{value:.3g}" for value in basin.proposed)
            )
        elif basin.reason:
            doubts.append(f"{name}: {basin.reason}, so the best value tried stands for the vertex")
    if not basins:
        raise ValueError(
            f"{study.path}: no size with two values of {swept.replace('_', ' ')} of which one did not diverge: "
            f"{'; '.join(doubts)}."
        )
    if len(basins) == 1:
        doubts.append("one size only: a best value, and no law over sizes")
    return RateFit(swept, tuple(basins), _trends(basins, "best"), _trends(basins, "argmin"), tuple(doubts))


def write_rates(fit: RateFit, path: Path) -> None:
    """`fit.json`: the law over width (over parameters where no run says its width), and what it is made from."""
    laws = {over: asdict(trend) for over, trend in fit.trends.items()}
    whole = {
        "of": fit.swept,
        "law": laws.get("width") or laws.get("num_parameters"),
        "laws": laws,
        "argmin_laws": {over: asdict(trend) for over, trend in fit.argmin_trends.items()},
        "table": [{**asdict(basin), "best": basin.best} for basin in fit.basins],
        "doubts": fit.doubts,
    }
    write_text(path, json.dumps(strict_json(whole), indent=1) + "\n")


def value_from(path: Path, *, width: float | None = None, num_parameters: float | None = None) -> float:
    """The best learning rate at a size by a `fit.json`: of its law, or of its table where the law is one of one size.

    ValueError where the file says nothing of that size, and where it is of batch sizes.
    """
    fit = read_json(path, "`foreloom lab lr-fit` writes it.")
    size = {"width": width, "num_parameters": num_parameters}
    if not isinstance(fit, dict) or not {"of", "laws", "table"} <= fit.keys():
        raise ValueError(f"{path} is no fit of learning rates; `foreloom lab lr-fit SWEEP` writes one.")
    if fit["of"] != "learning_rate":
        raise ValueError(f"{path} is a fit of {fit['of']}, not of learning rates; name that of a sweep of rates.")
    for over, value in size.items():
        if value is not None and (law := fit["laws"].get(over)):
            return float(law["coefficient"] * value ** law["exponent"])
    for row in fit["table"]:
        if any(value is not None and row[over] == value for over, value in size.items()):
            return float(row["best"])
    told = ", ".join(f"{row['width'] or row['num_parameters']:g}" for row in fit["table"])
    raise ValueError(f"{path} has no law over sizes, and its one size is {told}: sweep a second one.")


def _comparable(group: Sequence[Run], swept: Swept) -> tuple[list[Run], list[str]]:
    """Of runs of one size those that differ in nothing that moves the best rate: the longest, and of several batch
    sizes the one with the lowest loss; what diverged had not to be as long."""
    kept, told = list(group), []
    finished = [run for run in kept if run.ending == "finished"]
    if finished and (longest := max(run.tokens for run in finished)):
        short = {run.label for run in finished if run.tokens < longest * (1 - SAME_RATIO)}
        if short:
            kept = [run for run in kept if run.label not in short]
            few = "1 run has" if len(short) == 1 else f"{len(short)} runs have"
            told.append(f"{few} fewer than its longest runs' {longest:,.0f} tokens: left out")
    sizes = {run.facts.get("batch_size") for run in kept}
    if swept == "learning_rate" and len(sizes) > 1:
        best = min(kept, key=lambda run: run.loss if run.ending == "finished" else math.inf).facts.get("batch_size")
        kept = [run for run in kept if run.facts.get("batch_size") == best]
        told.append(f"of its {len(sizes)} batch sizes the one with the lowest loss, {best}, was taken")
    return kept, told


def _swept_losses(group: Sequence[Run], swept: Swept) -> tuple[list[float], list[float]]:
    """Values and final losses; NaN for what diverged."""
    loss_of = lambda run: run.loss if run.ending == "finished" else math.nan
    if swept == "learning_rate":
        return [float(run.facts[swept]) for run in group], [loss_of(run) for run in group]
    of_value: dict[float, dict[Any, list[float]]] = {}
    for run in group:
        of_rate = of_value.setdefault(float(run.facts[swept]), {})
        of_rate.setdefault(run.facts.get("learning_rate"), []).append(loss_of(run))
    # One rate for all seeds: each seed's own best would reward what was tried at more rates, for noise.
    best = {value: min(of_rate.values(), key=_mean_or_inf) for value, of_rate in of_value.items()}
    pairs = [(value, loss) for value, losses in best.items() for loss in losses]
    return [value for value, _ in pairs], [loss for _, loss in pairs]


def _mean_or_inf(losses: Sequence[float]) -> float:
    """Infinite where one diverged, so that `min` has an order."""
    mean = statistics.fmean(losses)
    return mean if math.isfinite(mean) else math.inf


def _parabola(x_P: np.ndarray, y_P: np.ndarray) -> tuple[float, float | None, float]:
    """Curvature, e^vertex (None of a line), and R2."""
    centre = float(x_P.mean())
    a, b, c = np.polyfit(x_P - centre, y_P, 2)
    residual = y_P - np.polyval((a, b, c), x_P - centre)
    spread = float(np.sum((y_P - y_P.mean()) ** 2))
    r2 = 1 - float(np.sum(residual**2)) / spread if spread else 0.0
    log_vertex = centre - b / (2 * a) if a else math.inf
    return float(a), math.exp(log_vertex) if abs(log_vertex) < 100 else None, r2


def _why_not(kept: Sequence[float], curvature: float | None, vertex: float | None, r2: float | None) -> str:
    if curvature is None or r2 is None:
        return "fewer than three values"
    if curvature <= 0 or vertex is None:
        return "the loss does not bend upwards"
    margin = 10**INSIDE_DECADES
    if not kept[0] * margin <= vertex <= kept[-1] / margin:
        return "the vertex is at the edge of what was swept"
    return f"R2 of {r2:.3f} is below {LEAST_R2}" if r2 < LEAST_R2 else ""


def _proposed(tried: Sequence[float], best: float, edge: str) -> tuple[float, ...]:
    """On, at an edge, by the spacing there is; inside, half a spacing to either side of the best."""
    if len(tried) < 2:
        return ()
    spacing = float(np.median(np.diff(np.log(tried))))
    if edge:
        end, sign = (tried[0], -1) if edge == "low" else (tried[-1], 1)
        return tuple(sorted(end * math.exp(sign * spacing * k) for k in range(1, NUM_PROPOSED + 1)))
    near = [best * math.exp(shift * spacing) for shift in (-0.5, 0, 0.5)]
    return tuple(value for value in near if min(abs(math.log(value / one)) for one in tried) > spacing / 8)


def _trends(basins: Sequence[Basin], value: Literal["best", "argmin"]) -> dict[str, Trend]:
    found: dict[str, Trend] = {}
    overs: tuple[Over, ...] = ("width", "num_parameters")
    for over in overs:
        pairs = [(size, getattr(basin, value)) for basin in basins if (size := getattr(basin, over)) is not None]
        if len({size for size, _ in pairs}) >= 2:
            found[over] = fit_trend(over, *zip(*pairs, strict=True))
    return found


def fit_trend(over: Over, sizes: Sequence[float], values: Sequence[float]) -> Trend:
    """Of two sizes or more."""
    x, y = np.log10(sizes), np.log10(values)
    slope, level = np.polyfit(x, y, 1)
    misfit = float(np.sum((y - level - slope * x) ** 2))
    spread = float(np.sum((y - y.mean()) ** 2))
    se = math.sqrt(misfit / (len(x) - 2) / float(np.sum((x - x.mean()) ** 2))) if len(x) > 2 else None
    return Trend(over, float(10**level), float(slope), 1 - misfit / spread if spread else 1.0, len(x), se)
