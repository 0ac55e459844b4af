"""Which laws do these runs allow? Every fit that they do, side by side, and in words what they cannot tell."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from foreloom.files import strict_json
from foreloom.lab.fit.parametric import NAMES, Loss, ParametricFit, bootstrap, fit_parametric
from foreloom.lab.fit.points import Points, read_points
from foreloom.report.tables import Cell, Column, ScoreTable, print_or_write

INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class Findings:
    """What was found of one set of points."""

    points: Points
    parametric: ParametricFit | None = None
    drawn: Sequence[ParametricFit] = ()
    """The law of sets of runs drawn with replacement."""
    doubts: tuple[str, ...] = ()


def analyse(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    loss: str = "huber",
    delta: float = 1e-3,
    drop_worst: int = 0,
    num_bootstrap: int = 400,
) -> Findings:
    points = read_points(path, columns)
    if drop_worst:
        points = points.drop_worst(drop_worst)
    parametric = fit_parametric(points.N_P, points.D_P, points.L_P, loss=cast(Loss, loss), delta=delta)
    drawn = bootstrap(parametric, points.N_P, points.D_P, points.L_P, points.run_P, num=num_bootstrap)
    return Findings(points, parametric, drawn)


def constants_table(found: Findings) -> ScoreTable:
    """The constants of approach 3."""
    fit = found.parametric
    assert fit is not None
    rows: list[list[Cell]] = []
    for name in (*NAMES, "a", "b"):
        values = [getattr(one, name) for one in found.drawn]
        spread = [float(np.std(values)), *map(float, np.quantile(values, INTERVAL))] if values else [None] * 3
        rows.append([name, f"{getattr(fit, name):.6g}", *(None if one is None else f"{one:.4g}" for one in spread)])
    title = "Approach 3: L = E + A / N^alpha + B / D^beta"
    objective = (
        f"Objective {fit.objective:.9g}; {fit.num_hits} of {fit.num_starts} starts found it in {fit.seconds:.2f} s."
    )
    columns = [Column("Constant", "text"), *(Column(name, "score") for name in ("Value", "SE", "2.5 %", "97.5 %"))]
    return ScoreTable(columns, rows, [], title, (objective, *found.points.notes))


def print_findings(found: Findings, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(strict_json({"approach_3": dataclasses.asdict(found.parametric)}), indent=1))
    else:
        print_or_write(constants_table(found), None, None)
