"""A study's report: one HTML page that needs nothing outside it, and every figure as SVG and PNG for a paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foreloom.files import write_text
from foreloom.lab.fit import figures, tables
from foreloom.lab.fit.ablation import compare_variants, read_variants, variants_of
from foreloom.lab.fit.analysis import Findings, Options, analyse
from foreloom.lab.fit.comparison import Course, courses_of, exponents, gain_of
from foreloom.lab.fit.frontier import fit_power
from foreloom.lab.fit.learning_rate import RateFit, fit_rates
from foreloom.lab.fit.points import COLUMN_NAMES
from foreloom.lab.fit.runs import Study, check_there, read_study
from foreloom.lab.labels import SWEEP_SUFFIX
from foreloom.report.html import MEDIA_TYPES, document, escape, grid, image, width_points
from foreloom.report.style import save_figure
from foreloom.report.tables import ScoreTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_NAME, FIGURES = "report.html", "figures"
FEWEST_RUNGS = 4
"""Of different compute, for the largest to be predicted from the others."""
NARROW_POINTS = 360
"""A picture up to this width holds one panel."""


@dataclass
class Section:
    """What stands below one heading."""

    title: str
    figures: dict[str, Figure] = field(default_factory=dict)
    """By the names of their files."""
    tables: list[ScoreTable] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Assumed:
    """What multipliers of variants take for granted; None: no multipliers."""

    base: str | None = None
    E: float | None = None
    gamma: float | None = None


def write_report(
    paths: Sequence[Path], out: Path | None = None, options: Options | None = None, assumed: Assumed | None = None
) -> Path:
    """Write `report.html` and `figures/` into `out` (default: the first path's folder), of everything that the studies
    allow; the page's path is returned. Several folders, or one with several architectures, are compared, the first
    being the base. ValueError for a path without runs, points or variants.
    """
    for path in paths:
        check_there(path)
    options, assumed = options or Options(), assumed or Assumed()
    first = paths[0]
    out = out or (first if first.is_dir() else first.parent)
    folders = [path for path in paths if path.is_dir()]
    csvs = [path for path in paths if not path.is_dir()]
    sections: list[Section] = []
    for path in folders:
        sections += _study_sections(path, options, assumed, titled=len(paths) > 1)
    for path in csvs:
        sections += _csv_sections(path, options, assumed)
    if folders:
        sections += _sweeps(folders) + _comparison(folders, assumed)
    drawn = _save(sections, out / FIGURES)
    body = "".join(_html(section, out / FIGURES) for section in sections)
    body += _others(folders, drawn)
    name = " and ".join(path.resolve().name for path in paths)
    page = out / PAGE_NAME
    write_text(page, document(name, _header(folders), body))
    return page


def _study_sections(path: Path, options: Options, assumed: Assumed, *, titled: bool) -> list[Section]:
    """Curves, laws, the held-out rung, learning rates and variants of one folder."""
    study, name = read_study(path), path.resolve().name
    suffix, stem = (f": {name}", f"{name}-") if titled else ("", "")
    sections = [_curves(study, f"Curves{suffix}", stem)]
    rates = _rates(study, path, f"Learning rates{suffix}", stem)
    sections += [rates] if rates else []
    if assumed.base is not None:
        losses = variants_of(study)
        if assumed.base in losses:
            sections.append(_variants(losses, assumed, f"Variants{suffix}", stem))
    if len({round(math.log(run.flops), 2) for run in study.runs}) > 1:
        sections += _law_sections(path, options, suffix, stem)
    return sections


def _csv_sections(path: Path, options: Options, assumed: Assumed) -> list[Section]:
    with path.open(encoding="utf-8-sig") as file:
        header = [name.strip().lower() for name in file.readline().split(",")]
    if "variant" in header and not set(header) & set(COLUMN_NAMES["N"]):
        losses = read_variants(path)
        base = assumed.base or next(iter(losses))
        return [_variants(losses, replace(assumed, base=base), f"Variants: {path.stem}", f"{path.stem}-")]
    return _law_sections(path, options, f": {path.stem}", f"{path.stem}-")


def _curves(study: Study, title: str, stem: str) -> Section:
    course = Course(study.path.name, study.runs, "6nd", (0, math.inf))
    x, loss = course.points()
    law = fit_power(x, loss, E=None, num_runs=len(study.runs)) if len(x) >= 4 else None
    figure = figures.curves_figure(study.runs, (x, loss), law)
    return Section(title, {f"{stem}curves": figure}, [], list(study.notes))


def _law_sections(path: Path, options: Options, suffix: str, stem: str) -> list[Section]:
    found = analyse(path, options=replace(options, hold_out=""))
    size = Section(f"How large for its compute{suffix}")
    if found.approaches:
        size.tables.append(tables.approaches_table(found))
    if found.parabolas:
        size.figures[f"{stem}isoflop"] = figures.parabolas_figure(
            found.parabolas, found.drawn_parabolas, found.approaches
        )
    if found.parametric is not None:
        size.figures[f"{stem}residuals"] = figures.residuals_figure(found)
        size.tables += [tables.constants_table(found), tables.sensitivity_table(found)]
    size.sentences += [f"{doubt}." for doubt in found.doubts]
    compute = Section(f"Loss over compute{suffix}", {}, [tables.power_table(found)] if found.power else [])
    return [size, compute, *_held_out(found, path, options, suffix, stem)]


def _held_out(found: Findings, path: Path, options: Options, suffix: str, stem: str) -> list[Section]:
    """The largest rung, where there are enough others."""
    if len(np.unique(np.round(np.log(found.points.C_P), 1))) < FEWEST_RUNGS:
        return []
    held = analyse(path, options=replace(options, hold_out="largest", predictions_only=True))
    if not held.predictions:
        return []
    figure = figures.predictions_figure(held)
    return [Section(f"The largest, foretold{suffix}", {f"{stem}held-out": figure}, [tables.prediction_table(held)])]


def _sweeps(folders: Sequence[Path]) -> list[Section]:
    """The sweeps of several studies beside one another."""
    found = {path.resolve().name: _fit_of_rates(read_study(path), path) for path in folders}
    fits = {name.removesuffix(SWEEP_SUFFIX): fit for name, fit in found.items() if fit is not None}
    if len(fits) < 2:
        return []
    return [Section("Learning rates side by side", {"learning-rates": figures.sweeps_figure(fits)})]


def _rates(study: Study, path: Path, title: str, stem: str) -> Section | None:
    fit = _fit_of_rates(study, path)
    if fit is None:
        return None
    sentences = [f"{doubt}." for doubt in fit.doubts]
    return Section(title, {f"{stem}learning-rates": figures.basins_figure(fit)}, [tables.rates_table(fit)], sentences)


def _fit_of_rates(study: Study, path: Path) -> RateFit | None:
    """Of the study itself, or of the sweep beside it; None where no rate was swept."""
    beside = path.with_name(path.resolve().name + SWEEP_SUFFIX)
    for candidate in (study, read_study(beside) if beside.is_dir() else None):
        of_size: dict[float, set[float]] = {}
        for run in candidate.runs if candidate else ():
            if "learning_rate" in run.facts:
                of_size.setdefault(run.width or run.num_parameters, set()).add(float(run.facts["learning_rate"]))
        if candidate and any(len(rates) >= 3 for rates in of_size.values()):
            return fit_rates(candidate)
    return None


def _variants(losses: dict[str, dict[str, float]], assumed: Assumed, title: str, stem: str) -> Section:
    assert assumed.base is not None
    found = compare_variants(losses, assumed.base, E=assumed.E, gamma=assumed.gamma)
    told = (
        f"Multipliers assume that L - {assumed.E:g} falls as C^-{assumed.gamma:g}."
        if assumed.E is not None and assumed.gamma is not None
        else "Without an assumed E and gamma (--assume-e, --gamma) a loss is no multiple of compute."
    )
    figure = figures.variants_figure(found, assumed.base)
    return Section(title, {f"{stem}variants": figure}, [tables.variants_table(found, assumed.base, told)])


def _comparison(folders: Sequence[Path], assumed: Assumed) -> list[Section]:
    """Of the first two architectures; exponents of all."""
    courses = [one for one in courses_of(folders) if len({run.num_parameters for run in one.runs}) > 1]
    if not courses:
        return []
    rows = [row for one in courses for row in exponents(one)]
    section = Section("Frontiers", {}, [tables.exponents_table(rows)])
    whole = [row for row in rows if row.window == rows[0].window and row.name == rows[0].name and row.interval]
    if whole:
        section.figures["exponent-over-E"] = figures.assumed_E_figure(
            [row.law for row in whole], [row.interval for row in whole]
        )
    if len(courses) > 1:
        base, other = courses[:2]
        E = assumed.E or 0.0
        gain = gain_of(base, other, E=E)
        if gain is None:
            section.sentences.append("No loss was measured in both studies: there is no gain to be told.")
        else:
            laws, points = [one.law(E) for one in (base, other)], [one.points() for one in (base, other)]
            names = [one.name for one in (base, other)]
            spans = (gain.C_G, gain.gain_G, gain.low_G, gain.high_G)
            section.figures["frontiers"] = figures.frontiers_figure(names, points, laws, spans)
            section.sentences.append(
                f"{base.name} needs {gain.gain_G[0]:.3g} times the compute of {other.name} for its loss at "
                f"{gain.C_G[0]:.2g} FLOPs, {gain.gain_G[-1]:.3g} times at {gain.C_G[-1]:.2g}; only where both were "
                f"measured, with E = {E:g}."
            )
    return [section]


def _save(sections: Iterable[Section], folder: Path) -> list[Path]:
    return [
        save_figure(figure, folder / f"{name}.{ending}")
        for section in sections
        for name, figure in section.figures.items()
        for ending in ("svg", "png")
    ]


def _html(section: Section, folder: Path) -> str:
    """`folder`: of the figures, which are saved by now."""
    cards = "".join(_figure_card((folder / f"{name}.svg").read_bytes(), name) for name in section.figures)
    content = grid(cards, "pictures")
    for table in section.tables:
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
        shown = f'<h3>{escape(table.title)}</h3><div class="scroll">{table.to_html()}</div>'
        content += f'<div class="card below">{shown}{notes}</div>'
    if section.sentences:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences)
        content += f'<div class="card below"><h3>What to know</h3><ul>{items}</ul></div>'
    return f"<section><h2>{escape(section.title)}</h2>{content}</section>\n" if content else ""


def _figure_card(content: bytes, name: str, suffix: str = ".svg") -> str:
    width = width_points(content)
    kind = "card" if width and width <= NARROW_POINTS else "card wide scroll"
    return image(content, suffix, name.replace("-", " "), kind, width)


def _others(folders: Sequence[Path], own: Sequence[Path]) -> str:
    """Pictures that other commands left with the study: coordinate checks, memory, a ladder."""
    known = {path.resolve() for path in own}
    found = [
        path
        for folder in folders
        for path in sorted([*folder.glob("*"), *folder.glob("*/*")])
        if path.suffix.lower() in MEDIA_TYPES and path.resolve() not in known and path.parent.name != FIGURES
    ]
    kept = [path for path in found if path.suffix == ".svg" or path.with_suffix(".svg") not in found]
    cards = "".join(_figure_card(path.read_bytes(), path.stem, path.suffix) for path in kept)
    return f"<section><h2>More figures of the study</h2>{grid(cards, 'pictures')}</section>\n" if cards else ""


def _header(folders: Sequence[Path]) -> str:
    """How much was run."""
    studies = [read_study(path) for path in folders]
    if not studies:
        return ""
    runs = [run for study in studies for run in study.runs]
    sizes = [run.num_parameters for run in runs]
    facts = [
        ("runs finished", f"{len(runs)}"),
        ("left out", f"{sum(len(study.left_out) for study in studies)}"),
        ("parameters", f"{figures.short(min(sizes))} to {figures.short(max(sizes))}"),
        ("FLOPs in all, 6ND", f"{sum(run.flops for run in runs):.3g}"),
        ("lowest loss", f"{min(run.loss for run in runs):.4g}"),
    ]
    tiles = "".join(f'<div class="card"><b>{value}</b><span>{escape(label)}</span></div>' for label, value in facts)
    return f'<div class="facts">{tiles}</div>\n'
