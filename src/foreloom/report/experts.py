"""`foreloom report experts`: which kinds of series a model sends to which expert.

Axes: N series, R target rows, L layers with experts, E experts, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foreloom.data.pattern import pattern_of
from foreloom.data.reader import open_source
from foreloom.data.selection import fixed_choice
from foreloom.data.series import Series
from foreloom.data.windows import ForecastInput
from foreloom.evaluation.specialization import Specialization, specialization
from foreloom.forecast.model import from_pretrained
from foreloom.models.family import ExpertChoices, RoutedForecaster
from foreloom.report.expert_table import expert_figure, expert_table
from foreloom.report.rendering import Form, print_or_write
from foreloom.report.style import save_figure

KIND_COLUMN = "kind"
"""The static column that is taken where every series has it."""
LONGEST_CONTEXT = 2048
"""Steps routed by default of models that could look at more."""
PATTERN_STEPS = 512
"""Newest steps that a series' pattern is told from, whatever of them the model reads."""


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

    @property
    def shown(self) -> Specialization:
        return self.layers[self.layer - 1]


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
    forecaster = from_pretrained(model, device).forecaster
    if not isinstance(forecaster, RoutedForecaster):
        raise ValueError(f"{model} is of a family without experts, so there is nothing to tell of them.")
    report = route(forecaster, data, kind=kind, context_length=context_length, max_series=max_series, layer=layer)
    name = f"{Path(model).name} on {Path(data).name}"
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
        raise ValueError(f"--layer {layer}: the model has experts in {len(layers)} layer(s), numbered from 1.")
    return ExpertReport(layers, layer, contexts.kinds_by, contexts.num_left_out, steps)


def by_layer(choices: ExpertChoices, num_targets: Sequence[int], kinds: Sequence[str]) -> tuple[Specialization, ...]:
    """Of each layer; the variates of a series are averaged, so that series count alike."""
    first_row = np.cumsum([0, *num_targets[:-1]])
    num_rows = np.array(num_targets)[:, None, None]
    share_RLE = choices.chosen_RLE / choices.chosen_RLE.sum(-1, keepdims=True)
    share_NLE, probability_NLE = (
        np.add.reduceat(x_RLE.astype(np.float64), first_row) / num_rows
        for x_RLE in (share_RLE, choices.probability_RLE)
    )
    return tuple(
        specialization(share_NLE[:, i], probability_NLE[:, i], kinds, choices.top_k) for i in range(share_NLE.shape[1])
    )


def _read(data: str, column: str | None, num_steps: int, max_series: int | None) -> _Contexts:
    """The newest steps of each series, with its kind."""
    source = open_source(data)
    series: list[Series] = []
    num_left_out = 0
    for item in fixed_choice(np.arange(len(source)), max_series):
        one = source.read(int(item))
        if np.isfinite(one.target_VT[:, -num_steps:]).any():
            series.append(one)
        else:
            num_left_out += 1
    if not series:
        raise ValueError(
            f"{data}: no series has a value among its newest {num_steps} steps, so there is nothing to route; a longer "
            "--context-length reaches further back."
        )
    inputs = [_context(one.target_VT[:, -num_steps:]) for one in series]
    column = column or (KIND_COLUMN if all(KIND_COLUMN in one.static for one in series) else None)
    if column is None:
        kinds = [pattern_of(x.context_RC[0]) for x in inputs]
        return _Contexts(
            inputs, list(kinds), "by what their contexts look like (foreloom/data/pattern.py)", num_left_out
        )
    if lacking := [one.item_id for one in series if one.static.get(column) is None]:
        known = sorted({name for one in series for name in one.static})
        raise ValueError(
            f"--kind {column}: {len(lacking)} of {len(series)} series of {data} have no such static column, "
            f"{lacking[0]!r} for one. Static columns: {', '.join(known) or 'none'}. Without --kind, kinds are patterns of "
            "the values."
        )
    return _Contexts(inputs, [str(one.static[column]) for one in series], f"by the column {column}", num_left_out)


def _context(target_VT: np.ndarray) -> ForecastInput:
    no_future = np.empty((len(target_VT), 0), np.float32)
    return ForecastInput(target_VT.astype(np.float32), no_future, num_targets=len(target_VT))
