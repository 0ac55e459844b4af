"""What a law is fitted to: runs that ended, each a point of N parameters, D tokens, C FLOPs and the loss they led to.

Axes: P points.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreloom.lab.fit.parametric import FLOPS_PER_PARAMETER_TOKEN

COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "N": ("n", "num_parameters", "parameters", "params", "model size"),
    "D": ("d", "tokens", "num_tokens", "tokens_processed", "training tokens"),
    "C": ("c", "flops", "compute", "theoretical_flops_chinchilla", "training flop"),
    "L": ("l", "loss", "validation_loss", "final_loss", "final_val_loss"),
    "run": ("run", "label", "name", "run_id"),
}
"""What a column may be called, whatever its capitals; the first that a table has is taken."""
EVEN_ROWS = 20
"""So many rows of one N at equal distances of D are those of a training curve."""


@dataclass(frozen=True)
class Points:
    """A point a run, in the order read."""

    N_P: np.ndarray
    """Parameters, by the convention that the source of the points has."""
    D_P: np.ndarray
    """Tokens trained on."""
    L_P: np.ndarray
    """Nats."""
    C_P: np.ndarray
    """FLOPs."""
    labels: tuple[str, ...]
    run_P: np.ndarray
    """The number of the run: where points share one, they are drawn together."""
    notes: tuple[str, ...] = ()
    """Sentences on conventions, and on what was left out."""

    def __len__(self) -> int:
        return len(self.L_P)

    def take(self, kept_P: np.ndarray, *notes: str) -> Points:
        """Some of them, by a mask or by indices, with more to be said."""
        index = np.arange(len(self))[kept_P]
        return dataclasses.replace(
            self,
            **{name: getattr(self, name)[index] for name in ("N_P", "D_P", "L_P", "C_P")},
            labels=tuple(self.labels[i] for i in index),
            run_P=np.unique(self.run_P[index], return_inverse=True)[1],
            notes=(*self.notes, *notes),
        )

    def drop_worst(self, num: int) -> Points:
        """Without the `num` of the highest loss, as Hoffmann et al. (2022) and those after them leave out five."""
        return self.take(np.sort(np.argsort(self.L_P, kind="stable")[: len(self) - num]))


def read_points(path: Path, columns: Mapping[str, str] | None = None) -> Points:
    """The points of a CSV with N and L and with D or C, under the names of `COLUMN_NAMES` or those given in `columns`.

    D is C / 6N where it is not there. ValueError names the file, and the line of a cell that is no number; rows without
    a loss are left out and told of.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    place = _places(path, header, columns or {})
    if not rows:
        raise ValueError(f"{path}: no row below the header. Give a row a run.")
    table: dict[str, np.ndarray] = {}
    for name in ("N", "D", "C", "L"):
        if name in place:
            table[name] = np.array([number_at(path, line, header, row, place[name]) for line, row in rows])
    for name in [name for name in ("N", "D", "C") if name in table]:
        _check_positive(path, name, table[name], [line for line, _ in rows])
    notes = []
    if "D" not in table:
        table["D"] = table["C"] / (FLOPS_PER_PARAMETER_TOKEN * table["N"])
        notes.append(f"D is C / 6N, of columns {header[place['C']]!r} and {header[place['N']]!r}.")
    product = FLOPS_PER_PARAMETER_TOKEN * table["N"] * table["D"]
    ratio = table.setdefault("C", product) / product
    if np.nanmax(np.abs(ratio - 1), initial=0) > 0.01:
        low, high = np.nanmin(ratio), np.nanmax(ratio)
        notes.append(
            f"C is that of the table, {low:.3g} to {high:.3g} times 6ND; the best sizes of approaches 1 and 2 are for "
            "such a C, those of approach 3 for C = 6ND."
        )
    else:
        notes.append("C is 6ND; N counts what the table counts: say whether embeddings are in it.")
    labels = [row[place["run"]].strip() if "run" in place else f"line {line}" for line, row in rows]
    points = Points(table["N"], table["D"], table["L"], table["C"], tuple(labels), _numbered(labels), tuple(notes))
    return _checked(path, points, has_runs="run" in place)


def _places(path: Path, header: Sequence[str], columns: Mapping[str, str]) -> dict[str, int]:
    lower, place = [name.lower() for name in header], {}
    for name, known in COLUMN_NAMES.items():
        if name in columns:
            if columns[name] not in header:
                raise ValueError(f"{path}: no column {columns[name]!r} for {name}; there are {_listed(header)}.")
            place[name] = header.index(columns[name])
        elif found := [one for one in known if one in lower]:
            place[name] = lower.index(found[0])
    missing = [name for name in ("N", "L") if name not in place]
    if "D" not in place and "C" not in place:
        missing.append("D or C")
    if missing:
        raise ValueError(
            f"{path}: no column for {', '.join(missing)}; there are {_listed(header) or 'none'}. Name them with "
            "--columns, as in --columns N=params,D=tokens,L=loss."
        )
    return place


def number_at(path: Path, line: int, header: Sequence[str], row: Sequence[str], place: int) -> float:
    """In a row of a CSV, NaN for an empty cell. ValueError names the file, the line and the column."""
    text = row[place].strip() if place < len(row) else ""
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise ValueError(f"{path}:{line}: {text!r} in column {header[place]!r} is not a number.") from None


def _check_positive(path: Path, name: str, values: np.ndarray, lines: Sequence[int]) -> None:
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(wrong):
        raise ValueError(f"{path}:{lines[wrong[0]]}: {name} must be a positive number, found {values[wrong[0]]:g}.")


def _checked(path: Path, points: Points, *, has_runs: bool) -> Points:
    """Without rows that have no loss. ValueError for rows that are no runs."""
    fine_P = np.isfinite(points.L_P) & (points.L_P > 0)
    left_out = [label for label, fine in zip(points.labels, fine_P, strict=True) if not fine]
    if left_out:
        points = points.take(fine_P, f"{len(left_out)} without a finite loss left out: {_listed(left_out)}.")
    if has_runs and len(set(points.labels)) < len(points):
        last = {label: i for i, label in enumerate(points.labels)}
        last = {
            label: max((i for i, other in enumerate(points.labels) if other == label), key=lambda i: points.D_P[i])
            for label in last
        }
        points = points.take(
            np.array(sorted(last.values())),
            f"Rows of one run are one observation: of {len(last)} runs the row with the most tokens each was taken.",
        )
    elif not has_runs:
        _refuse_curves(path, points)
    return points


def _refuse_curves(path: Path, points: Points) -> None:
    """Rows of a training curve are not runs: they depend on each other, and the schedule had not ended there."""
    for N in np.unique(points.N_P):
        steps = np.diff(np.unique(points.D_P[points.N_P == N]))
        if len(steps) >= EVEN_ROWS and np.ptp(steps) < 0.01 * steps.mean():
            raise ValueError(
                f"{path}: {len(steps) + 1} rows of N = {N:g} stand at equal distances of D: those of one training "
                "curve, not runs. Give a row a run (its last), or a column `run` that says which rows belong together."
            )


def _numbered(labels: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(labels, dtype=str), return_inverse=True)[1]


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
