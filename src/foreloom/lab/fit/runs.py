"""What did a folder's runs measure? Their CSVs, `<label>.csv` beside `config_<label>.json`, as curves and endpoints.

Read are the columns that a study here writes, and those of hansgundlach/Experimental_Progress: FLOPs rounded to three
digits, training losses that may be corrupt, no word of N. A run that diverged or did not end is kept apart, with why.

Axes: T rows of a run.
"""

from __future__ import annotations

import csv
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foreloom.files import read_json
from foreloom.lab.fit.parametric import FLOPS_PER_PARAMETER_TOKEN
from foreloom.lab.fit.points import Points, number_at
from foreloom.lab.labels import learning_rate_in

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "step": ("optimizer_step", "step"),
    "tokens": ("tokens_processed", "tokens"),
    "validation": ("validation_loss",),
    "training": ("loss", "training_loss"),
    "chinchilla": ("theoretical_flops_chinchilla", "theoretical_flops"),
    "counted": ("flops", "total_flops_profiler"),
}
"""What is read of a run, under the name it has here and those it had in the old repository."""
FACTS: Mapping[str, tuple[str, ...]] = {
    "num_parameters": ("num_parameters", "total_params", "parameters"),
    "num_non_embedding": ("num_non_embedding", "num_non_embedding_parameters", "non_embedding_params"),
    "architecture": ("architecture", "family", "arch"),
    "width": ("hidden_dim", "d_model", "width"),
    "learning_rate": ("learning_rate", "peak_learning_rate"),
    "batch_size": ("effective_batch_size", "batch_size"),
    "seed": ("seed",),
    "study": ("study", "folder_name"),
    "num_steps": ("num_steps", "steps"),
    "planned_tokens": ("planned_tokens", "max_tokens_training"),
    "num_tokens": ("num_tokens",),
    "n_convention": ("n_convention",),
    "status": ("status",),
}
"""What is read of a configuration, wherever in it the name stands."""
SAME_RATIO = 0.01
"""By how much D / N may differ and count as the same."""
ROUNDED_DIGITS = 6
"""A figure written with a power of ten and up to so many digits is taken as rounded."""

Ending = Literal["finished", "unfinished", "diverged"]


@dataclass(frozen=True)
class Run:
    """A run's course, at the rows where its loss was measured."""

    label: str
    path: Path
    step_T: np.ndarray
    tokens_T: np.ndarray
    loss_T: np.ndarray
    """Nats, of held-out data; of the training batches where nothing was held out. NaN from where it diverged."""
    counted_T: np.ndarray
    """FLOPs as counted or profiled; NaN where the CSV does not say."""
    num_parameters: float
    facts: Mapping[str, Any]
    """What is known under the names of `FACTS`."""
    ending: Ending = "finished"
    reason: str = ""
    """Of one that did not finish."""
    is_held_out: bool = True
    notes: tuple[str, ...] = ()

    @property
    def flops_T(self) -> np.ndarray:
        """6ND."""
        return FLOPS_PER_PARAMETER_TOKEN * self.num_parameters * self.tokens_T

    @property
    def loss(self) -> float:
        return float(self.loss_T[-1])

    @property
    def tokens(self) -> float:
        return float(self.tokens_T[-1])

    @property
    def flops(self) -> float:
        return float(self.flops_T[-1])

    @property
    def width(self) -> float | None:
        return self.facts.get("width")


@dataclass(frozen=True)
class Study:
    """The runs of a folder."""

    path: Path
    runs: tuple[Run, ...]
    """Those that finished, the smallest first."""
    left_out: tuple[Run, ...]
    notes: tuple[str, ...]

    def points(self, *, non_embedding: bool = False) -> Points:
        """The end of every run. Where runs of one size differ in learning rate, only those with the best one.

        N is counted as the configurations say (`n_convention`), or without embeddings where that is asked for.
        """
        runs, notes = _at_best_rate(self.runs)
        said = {run.facts.get("n_convention", "total") for run in runs}
        non_embedding = non_embedding or (len(said) == 1 and "total" not in said)
        N = np.array([run.facts["num_non_embedding"] if non_embedding else run.num_parameters for run in runs], float)
        D, L = np.array([run.tokens for run in runs]), np.array([run.loss for run in runs])
        notes = [*self.notes, *notes, f"N is {'without' if non_embedding else 'with'} embeddings; C is 6ND."]
        return Points(
            N, D, L, FLOPS_PER_PARAMETER_TOKEN * N * D, tuple(r.label for r in runs), np.arange(len(runs)), tuple(notes)
        )


def check_there(path: Path) -> None:
    """ValueError where there is neither a file nor a folder."""
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder. Give a CSV of N, D and L, or a folder of a study's CSVs.")


def read_study(folder: Path, parameters: Mapping[str, float] | None = None) -> Study:
    """The runs of a folder. `parameters` gives N by label where the files do not.

    ValueError for a folder without runs, a CSV whose columns are others or whose cell is no number, and for the runs of
    two studies.
    """
    check_there(folder)
    paths = sorted(path for path in folder.glob("*.csv") if not path.name.startswith("."))
    if not paths:
        inside = sorted({path.parent.name for path in folder.glob("*/*.csv")})
        hint = f" There are some in {', '.join(inside)}: name one of these." if inside else ""
        raise ValueError(f"{folder}: no CSV of a run in it.{hint}")
    runs, notes = [], []
    for path in paths:
        config = path.with_name(f"config_{path.stem}.json")
        if not config.is_file() and not _is_run(path):
            if len(paths) == 1:
                _read_columns(path)
            notes.append(f"{path.name} is no run: it has no column of steps, tokens and loss.")
            continue
        runs.append(read_run(path, config if config.is_file() else None, (parameters or {}).get(path.stem)))
    if not runs:
        _read_columns(paths[0])
    _refuse_two_studies(folder, runs)
    runs = sorted(_without_unfinished(runs), key=lambda run: (run.num_parameters, run.tokens, run.label))
    finished = tuple(run for run in runs if run.ending == "finished")
    left_out = tuple(run for run in runs if run.ending != "finished")
    notes += [f"{run.label} is left out: {run.reason}." for run in left_out]
    notes += [f"{run.label}: {note}" for run in finished for note in run.notes]
    if not finished:
        raise ValueError(f"{folder}: none of {len(runs)} runs finished. {' '.join(notes)}")
    if any(not run.is_held_out for run in finished):
        notes.append("Some runs have no validation loss: the training loss stands for it, which no seed evens out.")
    return Study(folder, finished, left_out, tuple(notes))


def read_run(path: Path, config: Path | None = None, num_parameters: float | None = None) -> Run:
    """One run. ValueError names the file, and the line of a cell that is no number."""
    text, value = _read_columns(path)
    facts = _facts_of(read_json(config, "Write it again, or remove it.")) if config else {}
    facts = _facts_of_label(path.stem) | facts
    is_held_out = any(text.get("validation", ()))
    kind = "validation" if is_held_out else "training"
    has_loss = np.array([bool(cell) for cell in text[kind]])
    value, notes = _with_losses_between(value, has_loss)
    measured = has_loss & (value["tokens"] > 0)
    if not measured.any():
        raise ValueError(f"{path}: no row has a loss after step 0: the run has measured nothing.")
    loss_T, tokens_T = value[kind][measured], value["tokens"][measured]
    known = num_parameters or facts.get("num_parameters") or _parameters_of(path, text, value)
    counted = value.get("counted", np.full(len(measured), math.nan))[measured]
    run = Run(
        path.stem,
        path,
        value["step"][measured],
        tokens_T,
        loss_T,
        counted,
        float(known),
        facts,
        is_held_out=is_held_out,
        notes=notes,
    )
    bad = ~np.isfinite(loss_T)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        where = "from its first row on" if first == 0 else f"from step {run.step_T[first]:,.0f} on"
        return replace(run, ending="diverged", reason=f"its loss is not finite {where}")
    if is_held_out and "training" in text and _ends_not_finite(text["training"], value["training"], measured):
        since = f"its training loss is not finite at its end, after the validation of step {run.step_T[-1]:,.0f}"
        return replace(run, ending="diverged", reason=since)
    if "status" in facts and facts["status"] != "finished":
        return replace(run, ending="unfinished", reason=f"its last session has {facts['status']}")
    last, trained = float(value["tokens"][-1]), facts.get("num_tokens")
    if trained and last < trained:
        return replace(
            run, ending="unfinished", reason=f"its rows end at {last:,.0f} of the {trained:,.0f} tokens trained"
        )
    for planned, reached, name in (("num_steps", run.step_T[-1], "steps"), ("planned_tokens", run.tokens, "tokens")):
        wanted = None if "status" in facts else facts.get(planned)
        if wanted and reached < wanted * (1 - SAME_RATIO):
            return replace(run, ending="unfinished", reason=f"it ended after {reached:,.0f} of {wanted:,.0f} {name}")
    return run


def _with_losses_between(
    value: Mapping[str, np.ndarray], has_loss: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Tokens and FLOPs of rows that have a loss and no tokens, as of a validation between two log lines: in proportion
    to the steps. With what is to be said of them."""
    step = value["step"]
    without = has_loss & ~np.isfinite(value["tokens"]) & (step > 0)
    if not without.any():
        return dict(value), ()
    filled = dict(value)
    for kind in {"tokens", "counted"} & value.keys():
        known = np.isfinite(value[kind])
        after_0 = known & (step > 0)
        steps, numbers = np.r_[0.0, step[after_0]], np.r_[0.0, value[kind][after_0]]
        if (np.diff(steps) > 0).all():
            between = np.interp(step, steps, numbers, right=math.nan)
            filled[kind] = np.where(without & ~known, between, value[kind])
    lost = without & ~np.isfinite(filled["tokens"])
    notes = []
    if num := int((without & ~lost).sum()):
        notes.append(f"{num} of its losses lie between rows with tokens: theirs are in proportion to the steps.")
    if num := int(lost.sum()):
        notes.append(f"{num} of its losses are left out: no row after them says how many tokens there were.")
    return filled, tuple(notes)


def _ends_not_finite(text: Sequence[str], loss: np.ndarray, measured: np.ndarray) -> bool:
    """Is the last training loss after the last validation written, and not finite?"""
    after = [place for place in range(int(np.flatnonzero(measured)[-1]) + 1, len(text)) if text[place]]
    return bool(after) and not math.isfinite(loss[after[-1]])


def _is_run(path: Path) -> bool:
    header = _header(path)
    return all(any(name in header for name in COLUMNS[kind]) for kind in ("step", "tokens"))


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [name.strip() for name in next(csv.reader(file), [])]


def _read_columns(path: Path) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Columns under our names, as text and as numbers (NaN for an empty cell)."""
    header = _header(path)
    place = {kind: next((header.index(n) for n in names if n in header), None) for kind, names in COLUMNS.items()}
    missing = [COLUMNS[kind][0] for kind in ("step", "tokens") if place[kind] is None]
    if place["validation"] is None and place["training"] is None:
        missing.append("validation_loss or loss")
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)}; there are {', '.join(header) or 'none'}.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        next(reader)
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path}: no row below the header: the run has measured nothing.")
    text = {
        kind: [row[at].strip() if at < len(row) else "" for _, row in rows]
        for kind, at in place.items()
        if at is not None
    }
    value = {
        kind: np.array([number_at(path, line, header, row, at) for line, row in rows])
        for kind, at in place.items()
        if at is not None
    }
    return text, value


def _parameters_of(path: Path, text: Mapping[str, Sequence[str]], value: Mapping[str, np.ndarray]) -> float:
    """N = FLOPs / 6D. Rounded FLOPs allow an interval in every row; the middle of what all rows allow is taken, which
    a hundred rows of three digits narrow to five."""
    if "chinchilla" not in text:
        raise ValueError(
            f"{path}: N is known neither from config_{path.stem}.json nor from a column "
            f"{COLUMNS['chinchilla'][0]}; write the configuration beside it."
        )
    pairs = FLOPS_PER_PARAMETER_TOKEN * value["tokens"]
    half = np.array([_half_unit(cell) for cell in text["chinchilla"]])
    fine = np.isfinite(value["chinchilla"]) & (pairs > 0)
    flops, half, pairs = value["chinchilla"][fine], half[fine], pairs[fine]
    low, high = ((flops - half) / pairs).max(initial=0), ((flops + half) / pairs).min(initial=math.inf)
    if low > high * (1 + 1e-9) or not fine.any():
        raise ValueError(
            f"{path}: no N makes column {COLUMNS['chinchilla'][0]} 6ND in every row (between {high:,.0f} and "
            f"{low:,.0f}); tokens or FLOPs are counted another way."
        )
    return (low + high) / 2


def _half_unit(cell: str) -> float:
    """Half of the last digit that is written, of a figure that looks rounded."""
    found = re.fullmatch(r"(\d+)\.?(\d*)[eE]([-+]?\d+)", cell)
    if not found or len(found[1] + found[2]) > ROUNDED_DIGITS:
        return abs(float(cell)) * 1e-12 if cell else math.nan
    return 0.5 * 10.0 ** (int(found[3]) - len(found[2]))


def _facts_of(config: Any) -> dict[str, Any]:
    """What `FACTS` names, the outermost of each name first."""
    flat: dict[str, Any] = {}
    layer = [config]
    while layer:
        for part in layer:
            for name, value in part.items() if isinstance(part, dict) else ():
                if isinstance(value, str | int | float) and not isinstance(value, bool):
                    flat.setdefault(name, value)
        layer = [one for part in layer if isinstance(part, dict) for one in part.values() if isinstance(one, dict)]
    found = {fact: next((flat[name] for name in names if name in flat), None) for fact, names in FACTS.items()}
    return {fact: value for fact, value in found.items() if value is not None}


def _facts_of_label(label: str) -> dict[str, Any]:
    """`64d_lr_-2.25` is 64 wide at a rate of 10^-2.25, see `labels.learning_rate_in`; `..._seed_3` is seed 3."""
    facts: dict[str, Any] = {}
    if width := re.search(r"(?:^|_)(\d+)d(?:_|$)", label):
        facts["width"] = int(width[1])
    if (rate := learning_rate_in(label)) is not None:
        facts["learning_rate"] = rate
    if seed := re.search(r"_seed_?(\d+)", label):
        facts["seed"] = int(seed[1])
    return facts


def _refuse_two_studies(folder: Path, runs: Sequence[Run]) -> None:
    of_study: dict[str, list[str]] = {}
    for run in runs:
        if study := run.facts.get("study"):
            of_study.setdefault(str(study), []).append(run.label)
    if len(of_study) > 1:
        told = "; ".join(f"{study}: {', '.join(labels[:3])}" for study, labels in of_study.items())
        raise ValueError(f"{folder} holds runs of {len(of_study)} studies ({told}). Put each into a folder of its own.")


def _without_unfinished(runs: Sequence[Run]) -> list[Run]:
    """Where most runs have one D / N, a run of less of it whose length nobody has written down did not end."""
    ratios = [run.tokens / run.num_parameters for run in runs if run.ending == "finished"]
    if len(ratios) < 3:
        return list(runs)
    usual = statistics.median(ratios)
    if sum(abs(ratio / usual - 1) < SAME_RATIO for ratio in ratios) <= len(ratios) / 2:
        return list(runs)
    checked = []
    for run in runs:
        ratio = run.tokens / run.num_parameters
        is_told = any(name in run.facts for name in ("num_steps", "planned_tokens", "status"))
        if run.ending == "finished" and not is_told and ratio < usual * (1 - 2 * SAME_RATIO):
            reason = f"it has {ratio:.3g} tokens a parameter where most have {usual:.3g}: it did not end"
            run = replace(run, ending="unfinished", reason=reason)
        checked.append(run)
    return checked


def _at_best_rate(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Of runs of one architecture, N and D that differ in learning rate those with the rate of the lowest mean loss.
    Seeds count other targets where rows are not full, so one D is within `SAME_RATIO`."""
    kept, num = [], 0
    size = lambda run: (str(run.facts.get("architecture")), round(math.log(run.num_parameters), 6))
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: (*size(run), run.tokens)):
        first = groups[-1][0] if groups else None
        if first is not None and size(first) == size(run) and run.tokens <= first.tokens * (1 + SAME_RATIO):
            groups[-1].append(run)
        else:
            groups.append([run])
    for group in groups:
        by_rate: dict[Any, list[Run]] = {}
        for run in group:
            by_rate.setdefault(run.facts.get("learning_rate"), []).append(run)
        best = min(by_rate.values(), key=lambda of_rate: statistics.fmean(run.loss for run in of_rate))
        num += len(by_rate) > 1
        kept += best
    note = [f"Of {num} sizes with several learning rates the runs with the best one were taken."] if num else []
    return kept, note
