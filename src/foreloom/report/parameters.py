"""How large a model is, what of it a forecast runs through, and what that costs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foreloom import run
from foreloom.checkpoint.locate import find_model_folder
from foreloom.config.shipped import shipped_recipes
from foreloom.models import registry
from foreloom.models.common.count import ParameterGroup
from foreloom.models.family import WindowLengths
from foreloom.models.lookbacks import forecaster_of
from foreloom.monitoring.health import bytes_in_words
from foreloom.report.tables import Cell, Column, ScoreTable

FLOAT_BYTES, HALF_BYTES = 4, 2
OPTIMIZER_BYTES = 2 * FLOAT_BYTES
"""Of a parameter in AdamW's state: the means of its gradient and of the square."""
TRAINING_BYTES = 2 * FLOAT_BYTES + OPTIMIZER_BYTES
"""With the float32 weight itself and its gradient."""


UNLIMITED_ROW = 2048
"""Tokens of the row that is counted for a model without a longest one."""


class RowLength(NamedTuple):
    """What a family reads of a `data` section of text to count its FLOPs, where there is no recipe."""

    max_seq_length: int


@dataclass(frozen=True)
class ModelSize:
    """What a model's parameters are for, and the work of one row."""

    parts: tuple[ParameterGroup, ...]
    context_length: int
    """In steps; of a model of text the tokens of a row."""
    horizon: int
    """0 for a model of text."""
    flops_per_row: float
    """Forward and backward at these lengths (in steps)."""

    @property
    def total(self) -> ParameterGroup:
        return _sum("total", self.parts)

    @property
    def mixture(self) -> ParameterGroup | None:
        """What the same model without its experts would not have; None without experts."""
        parts = [part for part in self.parts if part.in_mixture]
        return _sum("the experts add", parts) if parts else None


def parameters(what: str, overrides: Sequence[str] = ()) -> ScoreTable:
    """The table of a recipe (its file or a shipped one's name) or of a trained model.

    ValueError for overrides of a model that is trained already, and as recipes and model folders raise it.
    """
    shipped = shipped_recipes()
    is_recipe = what in shipped or Path(what).suffix in (".yaml", ".yml")
    if models := [one for one in overrides if "=" not in one]:
        raise ValueError(f"{models[0]} is no setting (name=value), and models are counted one at a time.")
    if overrides and not is_recipe:
        raise ValueError(f"{' '.join(overrides)}: {what} is no recipe, and only a recipe's settings can be changed.")
    is_name = not is_recipe and "/" not in what and not Path(what).exists()
    if is_name and (close := difflib.get_close_matches(what, shipped, n=1)):
        raise ValueError(f"{what}: no such folder, and no shipped recipe of that name. Did you mean {close[0]}?")
    size = size_of_recipe(what, overrides) if is_recipe else size_of_model(what)
    return parameter_table(size, Path(what).stem if is_recipe else Path(what).name)


def size_of_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> ModelSize:
    """The model a recipe would train, at the recipe's lengths. Needs neither its data nor memory for the model."""
    read = run.load(recipe, overrides, need_data=False)
    family, module = registry.get(read.sections["model"].family), run.shapes_of(read)
    data: Any = run.data_of(read)
    lengths = (data.max_seq_length, 0) if family.generator else (data.context_length, data.prediction_length)
    return ModelSize(tuple(family.parts(module)), *lengths, family.flops_per_row(module, data))


def size_of_model(path_or_hub_id: str | Path) -> ModelSize:
    """A trained model (see `from_pretrained`), at the longest context and horizon of one forward; of text at its
    longest row."""
    folder = find_model_folder(path_or_hub_id)
    family = registry.recognise(folder)
    with torch.device("meta"):
        module = family.load(folder)
    if family.generator:
        longest: Any = getattr(module, "longest", None)
        row = RowLength(longest or UNLIMITED_ROW)
        return ModelSize(tuple(family.parts(module)), row.max_seq_length, 0, family.flops_per_row(module, row))
    forecaster = forecaster_of(family, module)
    lengths = WindowLengths(forecaster.context_length, forecaster.prediction_length)
    return ModelSize(tuple(family.parts(module)), *lengths, family.flops_per_row(module, lengths))


def parameter_table(size: ModelSize, name: str) -> ScoreTable:
    """A row a part; below, the total and, with experts, the same model without them and what they add."""
    columns = [
        Column("Part", "text"),
        Column("Parameters", "count"),
        Column("Active", "count"),
        Column("Of total", "score"),
    ]
    total = size.total
    summary = [_row(total, total)]
    if size.mixture is not None:
        plain = _sum("without experts", [part for part in size.parts if not part.in_mixture])
        summary += [_row(plain, total), _row(size.mixture, total)]
    rows = [_row(part, total) for part in size.parts]
    return ScoreTable(columns, rows, summary, f"Parameters of {name}", _notes(size))


def _notes(size: ModelSize) -> tuple[str, ...]:
    number = size.total.num_parameters
    row = f"{size.context_length:,} steps of context and {size.horizon:,} of horizon"
    row = row if size.horizon else f"{size.context_length:,} tokens"
    notes = [
        f"One row, {row}, forward and backward: {size.flops_per_row / 1e9:,.2f} GFLOPs.",
        f"Weights: {bytes_in_words(number * FLOAT_BYTES)} in float32, {bytes_in_words(number * HALF_BYTES)} in "
        f"bfloat16; AdamW's state: {bytes_in_words(number * OPTIMIZER_BYTES)}; weights, gradients and state in "
        f"training: {bytes_in_words(number * TRAINING_BYTES)}, and activations.",
    ]
    if (mixture := size.mixture) is not None:
        plain = number - mixture.num_parameters
        notes.insert(
            0,
            "Active: what one choice of experts runs through. The experts add "
            f"{mixture.num_parameters / plain:.1%} to the parameters and {mixture.num_active / plain:.1%} to the "
            "active ones.",
        )
    return tuple(notes)


def _row(part: ParameterGroup, total: ParameterGroup) -> list[Cell]:
    return [part.name, part.num_parameters, part.num_active, f"{part.num_parameters / total.num_parameters:.1%}"]


def _sum(name: str, parts: Sequence[ParameterGroup]) -> ParameterGroup:
    return ParameterGroup(name, sum(part.num_parameters for part in parts), sum(part.num_active for part in parts))
