"""The rows that training reads: all of a data set, or what the sources of a recipe leave to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foreloom.audit.rows import Rows
from foreloom.config.shipped import shipped_recipes
from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.formats.reader import open_source
from foreloom.data.source import Source
from foreloom.data.stream.selection import read_excluded, select
from foreloom.data.synthetic import registry
from foreloom.data.synthetic.address import SOURCES, is_synthetic, read_address
from foreloom.data.tables.options import TableOptions
from foreloom.run.recipe import RECIPE_NAME, load


def training_rows(train: str | Path, table: TableOptions = TableOptions()) -> tuple[Rows, list[str]]:
    """Of a recipe, the name of a shipped one, a run folder, or a data set in any layout; and what has to be said.

    What training leaves out of a recipe (holdouts, `max_series`, `exclude`) is left out here. Raises ValueError as
    `open_source` and `load` do, and for a recipe that does not learn from series.
    """
    recipe = _recipe_of(train)
    if recipe is None:
        return _whole([open_source(train, table=table)]), []
    if table != TableOptions():
        raise ValueError(f"{train}: what a table does not say itself stands in the recipe, as `table` of its source.")
    data = load(recipe, need_data=False).sections["data"]
    if not isinstance(data, DataConfig):
        raise ValueError(
            f"{train} learns from text: there are no series to look for a benchmark in. Name a recipe of series."
        )
    rows, notes = _of_recipe(data)
    if not rows.sources:
        raise ValueError(f"{train} trains on synthetic series alone, which are made of no data: nothing can overlap.")
    return rows, notes


def _recipe_of(train: str | Path) -> Path | None:
    path = Path(train)
    if (path / RECIPE_NAME).is_file():
        return path / RECIPE_NAME
    is_recipe = path.suffix in (".yaml", ".yml") or (not path.exists() and str(train) in shipped_recipes())
    return path if is_recipe else None


def _whole(sources: Sequence[Source]) -> Rows:
    return Rows.of(sources, [np.arange(len(one)) for one in sources], [one.lengths for one in sources])


def _of_recipe(data: DataConfig) -> tuple[Rows, list[str]]:
    opened = [open_source(one.path, table=one.table or TableOptions()) for one in data.sources]
    left_out = read_excluded(data.exclude, opened)
    notes: list[str] = []
    sources: list[Source] = []
    items: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    for config, source, without in zip(data.sources, opened, left_out, strict=True):
        if is_synthetic(config.path):
            parts, note = _made_of(config)
            notes.append(note)
            sources += parts
            items += [np.arange(len(one)) for one in parts]
            lengths += [one.lengths for one in parts]
            continue
        chosen = select(source, data.min_length, config.max_series, config.holdout, without)
        sources.append(source)
        items.append(chosen.items)
        lengths.append(chosen.lengths)
    return Rows.of(sources, items, lengths), notes


def _made_of(config: SourceConfig) -> tuple[list[Source], str]:
    """The data that a synthetic source mixes, and a sentence about it."""
    address = read_address(config.path)
    paths = [one for one in getattr(address.settings, SOURCES, ()) if one not in registry.names()]
    if not paths:
        return [], f"{address.text} is made of no data: passed over."
    return [open_source(one) for one in paths], (
        f"{address.text}: looked at is what it mixes, {', '.join(paths)}, not the mixtures; a series of these is left "
        "out by taking it out of the file."
    )
