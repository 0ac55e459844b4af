"""`foreloom report experts`: which kinds of series a model sends to which expert.

Axes: N series, R target rows, L layers with experts, E experts, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foreloom.data.forecast_input import ForecastInput
from foreloom.data.formats.reader import open_source
from foreloom.data.pattern import pattern_of
from foreloom.data.source import Series
from foreloom.data.stream.selection import fixed_choice
from foreloom.data.synthetic.address import short_name
from foreloom.evaluation.specialization import Specialization, specialization
from foreloom.forecast.model import from_pretrained
from foreloom.models.family import ExpertChoices, RoutedForecaster
from foreloom.report.expert_table import ExpertReport, expert_figure, expert_table
from foreloom.report.rendering import Form, print_or_write
from foreloom.report.style import check_picture_name, save_figure

KIND_COLUMN = "kind"
"""The static column that is taken where every series has it."""
LONGEST_CONTEXT = 2048
"""Steps routed by default of models that could look at more."""
PATTERN_STEPS = 512
"""Newest steps that a series' pattern is told from, whatever of them the model reads."""


class _Contexts(NamedTuple):
    inputs: list[ForecastInput]
    kinds: list[str]
    kinds_by: str
    num_left_out: int


def experts_and_print(
    model: str,
    data: str,
    *,
    kind: str | None,
    context_length: int | None,
    max_series: int,
    layer: int | None,
    device: str,
    form: Form | None,
    out: Path | None,
    plot: Path | None,
) -> None:
    """Route the newest context of each series of a data set, and print or write the table and, with `plot`, a heatmap.

    Raises ValueError for a model without experts, a data set without the column `kind`, one whose contexts are all
    missing, and a layer there is not.
    """
    if plot is not None:
        check_picture_name(plot)
    forecaster = from_pretrained(model, device).forecaster
    if not isinstance(forecaster, RoutedForecaster):
        raise ValueError(f"{model} is of a family without experts, so there is nothing to tell of them.")
    report = route(forecaster, data, kind=kind, context_length=context_length, max_series=max_series, layer=layer)
    name = f"{Path(model).name} on {short_name(data)}"
    if len(report.layers) > 1:
        name += f", layer {report.layer} of {len(report.layers)}"
    print_or_write(expert_table(report, f"Experts of {name}"), form, out)
    if plot is not None:
        save_figure(expert_figure(report.shown, name), plot)
        print(f"wrote {plot}")


def route(
    forecaster: RoutedForecaster,
    data: str,
    *,
    kind: str | None = None,
    context_length: int | None = None,
    max_series: int | None = None,
    layer: int | None = None,
) -> ExpertReport:
    """Where the newest `context_length` steps of the series of a data set are sent (see `experts_and_print`)."""
    steps = min(forecaster.context_length, LONGEST_CONTEXT) if context_length is None else context_length
    contexts = _read(data, kind, steps, max_series)
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


def _read(data: str, column: str | None, num_steps: int, max_series: int | None) -> _Contexts:
    """The newest steps of each series, with its kind."""
    source = open_source(data)
    chosen = fixed_choice(np.arange(len(source)), max_series)
    series: list[Series] = []
    inputs: list[ForecastInput] = []
    for item in chosen:
        one = source.read(int(item))
        context_VL = one.target_VT[:, -num_steps:].astype(np.float32)
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
