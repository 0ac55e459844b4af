"""Which kinds of series a model sends to which of its experts: found by routing them, as a table, as a heatmap.

Axes: N series, R target rows, L layers with experts, E experts, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from foreloom.data.forecast_input import ForecastInput
from foreloom.data.formats.reader import open_source
from foreloom.data.pattern import pattern_of
from foreloom.data.source import Series
from foreloom.data.stream.selection import fixed_choice
from foreloom.data.synthetic.address import short_name
from foreloom.data.tables.options import TableOptions
from foreloom.evaluation.specialization import NUM_PERMUTATIONS, KindUse, Specialization, specialization
from foreloom.forecast.model import from_pretrained
from foreloom.models.family import ExpertChoices, RoutedForecaster
from foreloom.report.style import BLUE, INK, PAPER, styled
from foreloom.report.tables import Cell, Column, ScoreTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND_COLUMN = "kind"
"""The static column that is taken where every series has it."""
LONGEST_CONTEXT = 2048
"""Steps routed by default of models that could look at more."""
PATTERN_STEPS = 512
"""Newest steps that a series' pattern is told from, whatever of them the model reads."""
CELL_INCHES = (0.72, 0.36)
TITLE_CHARACTERS_PER_INCH = 9
DARK_SHARE = 0.7
"""From this share of the darkest blue on, a cell's number is written in the colour of the paper."""


@dataclass(frozen=True)
class ExpertReport:
    """What was found, a `Specialization` a layer."""

    layers: tuple[Specialization, ...]
    layer: int
    """The one to be shown, from 1."""
    kinds_by: str
    """Where the kinds come from."""
    num_left_out: int
    """Series with nothing observed in their context."""
    context_length: int
    name: str = ""
    """Of what, on what."""

    @property
    def shown(self) -> Specialization:
        return self.layers[self.layer - 1]


def route_model(
    model: str,
    data: str,
    *,
    kind: str | None = None,
    context_length: int | None = None,
    max_series: int | None = None,
    layer: int | None = None,
    device: str = "auto",
    table: TableOptions = TableOptions(),
) -> ExpertReport:
    """Route the newest context of each series of a data set through a model (see `route`), and name the two.

    Raises ValueError for a model without experts, a data set without the column `kind`, one whose contexts are all
    missing, and a layer there is not.
    """
    forecaster = from_pretrained(model, device).forecaster
    if not isinstance(forecaster, RoutedForecaster):
        raise ValueError(f"{model} is of a family without experts, so there is nothing to tell of them.")
    report = route(
        forecaster, data, kind=kind, context_length=context_length, max_series=max_series, layer=layer, table=table
    )
    name = f"{Path(model).name} on {short_name(data)}"
    if len(report.layers) > 1:
        name += f", layer {report.layer} of {len(report.layers)}"
    return replace(report, name=name)


def route(
    forecaster: RoutedForecaster,
    data: str,
    *,
    kind: str | None = None,
    context_length: int | None = None,
    max_series: int | None = None,
    layer: int | None = None,
    table: TableOptions = TableOptions(),
) -> ExpertReport:
    """Where the newest `context_length` steps of the series of a data set are sent."""
    steps = min(forecaster.context_length, LONGEST_CONTEXT) if context_length is None else context_length
    contexts = _read(data, kind, steps, max_series, table)
    choices = forecaster.route(contexts.inputs, context_length=steps)
    layers = by_layer(choices, [x.num_targets for x in contexts.inputs], contexts.kinds)
    layer = len(layers) if layer is None else layer
    if not 1 <= layer <= len(layers):
        plural = "s" * (len(layers) > 1)
        raise ValueError(f"--layer {layer}: the model has experts in {len(layers)} layer{plural}, numbered from 1.")
    return ExpertReport(layers, layer, contexts.kinds_by, contexts.num_left_out, steps)


def by_layer(choices: ExpertChoices, num_targets: Sequence[int], kinds: Sequence[str]) -> tuple[Specialization, ...]:
    """Of each layer; the variates of a series are averaged, so that series count alike."""
    first_row = np.cumsum([0, *num_targets[:-1]])
    num_rows = np.array(num_targets)[:, None, None]
    share_RLE = choices.chosen_RLE / choices.chosen_RLE.sum(-1, keepdims=True)
    mean = lambda x_RLE: np.add.reduceat(x_RLE.astype(np.float64), first_row) / num_rows
    share_NLE, probability_NLE = mean(share_RLE), mean(choices.probability_RLE)
    return tuple(
        specialization(share_NLE[:, i], probability_NLE[:, i], kinds, choices.top_k) for i in range(share_NLE.shape[1])
    )


class _Contexts(NamedTuple):
    inputs: list[ForecastInput]
    kinds: list[str]
    kinds_by: str
    num_left_out: int


def _read(data: str, column: str | None, num_steps: int, max_series: int | None, table: TableOptions) -> _Contexts:
    """The newest steps of each series, with its kind."""
    source = open_source(data, table=table)
    chosen = fixed_choice(np.arange(len(source)), max_series)
    series: list[Series] = []
    inputs: list[ForecastInput] = []
    for item in chosen:
        one = source.read(int(item))
        context_VL = np.array(one.target_VT[:, -num_steps:])
        context_VL = context_VL[np.isfinite(context_VL).any(axis=1)]
        if len(context_VL):
            series.append(one)
            inputs.append(ForecastInput(context_VL, np.empty((len(context_VL), 0), np.float32), len(context_VL)))
    if not series:
        raise ValueError(
            f"{data}: no series has a value among its newest {num_steps:,} steps, so there is nothing to route; a "
            "longer --context-length reaches further back."
        )
    kinds, kinds_by = _kinds(series, column)
    return _Contexts(inputs, kinds, kinds_by, len(chosen) - len(series))


def _kinds(series: Sequence[Series], column: str | None) -> tuple[list[str], str]:
    """The kind of each series, and by what it was told."""
    column = column or (KIND_COLUMN if all(KIND_COLUMN in one.static for one in series) else None)
    if column is None:
        kinds: list[str] = [pattern_of(one.target_VT[0, -PATTERN_STEPS:]) for one in series]
        return kinds, f"by the pattern of the newest {PATTERN_STEPS} steps"
    if lacking := [one.item_id for one in series if one.static.get(column) is None]:
        known = sorted({name for one in series for name in one.static})
        raise ValueError(
            f"--kind {column}: {len(lacking):,} of {len(series):,} series have no such static column, {lacking[0]!r} "
            f"for one. Static columns: {', '.join(known) or 'none'}. Without --kind, kinds are patterns of the values."
        )
    return [str(one.static[column]) for one in series], f"by the column {column}"


def expert_table(report: ExpertReport) -> ScoreTable:
    """A row a kind: series, the share of its choices that falls on each expert, their entropy, mean probabilities."""
    found = report.shown
    numbers = range(len(found.total.share_E))
    columns = [
        Column("Kind", "text"),
        Column("Series", "count"),
        *(Column(f"Expert {i}", "score") for i in numbers),
        Column("Entropy", "score"),
        *(Column(f"Mean p {i}", "score") for i in numbers),
    ]
    rows = [_row(use) for use in found.kinds]
    return ScoreTable(columns, rows, [_row(found.total)], f"Experts of {report.name}", tuple(_notes(report)))


def _row(use: KindUse) -> list[Cell]:
    return [use.kind, use.num_series, *use.share_E.tolist(), use.entropy, *use.probability_E.tolist()]


def _notes(report: ExpertReport) -> list[str]:
    found = report.shown
    notes = [
        f"Kinds {report.kinds_by}, contexts of the newest {report.context_length:,} steps. Expert: share of a kind's "
        "choices. Entropy: of these shares, 1 is even. Mean p: the router's probability before the choice.",
        _information(found),
        _never_chosen(found.unused) if found.unused else "Every expert is used.",
    ]
    if len(report.layers) > 1:
        bits = ", ".join(f"{layer.information_bits:.3f} ({layer.chance_95_bits:.3f})" for layer in report.layers)
        notes.append(f"Bits layer by layer, and what chance stays under in 19 cases of 20: {bits}.")
    if report.num_left_out:
        notes.append(f"Series left out, with nothing observed in their context: {report.num_left_out:,}.")
    return notes


def _never_chosen(experts: Sequence[int]) -> str:
    return f"Never chosen: expert{'s' * (len(experts) > 1)} {', '.join(map(str, experts))}."


def _information(found: Specialization) -> str:
    if len(found.kinds) == 1:
        return "All series are of one kind, so there is nothing to tell kinds apart by."
    verdict = (
        "Kinds go to different experts."
        if found.p_value <= 0.05
        else "That is no more than chance gives: no specialisation is seen."
    )
    return (
        f"Mutual information of kind and expert: {found.information_bits:.3f} of at most {found.most_bits:.3f} bits; "
        f"kinds dealt at random give {found.chance_bits:.3f}, and under {found.chance_95_bits:.3f} in 19 cases of 20 "
        f"(p = {found.p_value:.3f}, {NUM_PERMUTATIONS} deals). {verdict}"
    )


@styled
def expert_figure(report: ExpertReport) -> Figure:
    """A cell a kind and expert with the share in it, the darker the larger; all series below."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    found, name = report.shown, report.name
    uses = [*found.kinds, found.total]
    num_experts = len(found.total.share_E)
    width, height = CELL_INCHES
    size = (max(width * num_experts + 1.6, 3.6), height * len(uses) + 0.95)
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    largest = max(use.share_E.max() for use in uses)
    # The total stands apart.
    places = [*range(len(found.kinds)), len(found.kinds) + 0.25]
    for place, use in zip(places, uses, strict=True):
        for expert, share in enumerate(use.share_E):
            strength = float(share / largest)
            # Rectangles and not an image: their blue follows the reader's dark mode.
            ax.add_patch(Rectangle((expert, place), 0.96, 0.94, facecolor=BLUE, alpha=strength, linewidth=0))
            colour = PAPER if strength > DARK_SHARE else INK
            ax.text(expert + 0.48, place + 0.47, f"{share:.0%}", ha="center", va="center", color=colour)
    ax.set_xlim(0, num_experts)
    ax.set_ylim(places[-1] + 1, 0)
    ax.set_xticks([i + 0.48 for i in range(num_experts)], [str(i) for i in range(num_experts)])
    ax.set_yticks([place + 0.47 for place in places], [f"{use.kind} ({use.num_series:,})" for use in uses])
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines["bottom"].set_visible(False)
    ax.set_xlabel("expert")
    room = int(size[0] * TITLE_CHARACTERS_PER_INCH)
    short = name if len(name) <= room else name[: room - 1] + "…"
    figure.suptitle(
        f"Choices of each kind by expert\n{short}", x=0.02, ha="left", fontsize=10, fontweight="bold"
    ).set_parse_math(False)
    return figure
