"""The windows that a training step was made of, drawn once more from the data; as a table, a CSV, a list to exclude."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreloom.data.synthetic.address import short_name
from foreloom.files import whole_or_absent

if TYPE_CHECKING:
    from rich.table import Table

    from foreloom.data.batch import Dataset
    from foreloom.data.stream.replay import ReplayedWindow, WindowFacts


def batch_of_step(run_dir: Path, step: int) -> tuple[Dataset, Any]:
    """A run's data, and what its step drew of them: the whole global batch.

    Works for every step the run has made, also where a resumed run changed its batch size. Raises ValueError for a
    folder that is no run, a step it has not made, and data that have changed since.
    """
    from foreloom import run
    from foreloom.data.loader import BatchLoader
    from foreloom.monitoring.metrics_file import FILE_NAME, read_records
    from foreloom.training.incidents import anchors, position_of

    for name in (run.RECIPE_NAME, FILE_NAME):
        if not (run_dir / name).is_file():
            raise ValueError(f"{run_dir} is no run folder: it has no {name}.")
    recipe = run.load(run_dir / run.RECIPE_NAME, need_data=False)  # the benchmark's may be gone by now
    seed = recipe.sections["training"].seed
    data = run.data_of(recipe)
    records = list(read_records(run_dir))
    last_step = max((record["step"] for record in records if record.get("step")), default=0)
    open_loader = lambda rows: BatchLoader(data.open(seed, batch_size=rows), batch_size=rows)
    place = position_of(step, anchors(records), last_step, open_loader)
    return place.loader.dataset, place.loader.drawn(place.first_sample)


def of_samples(windows: Sequence[ReplayedWindow], samples: Sequence[int], step: int) -> list[ReplayedWindow]:
    """The windows of some samples of a step's batch; ValueError for one that is not in it."""
    there = [window.facts.sample for window in windows]
    if absent := [str(sample) for sample in samples if sample not in there]:
        raise ValueError(
            f"step {step:,} holds no sample {', '.join(absent)}, only {min(there)} to {max(there)}; the table's first "
            "column has their numbers."
        )
    return [window for window in windows if window.facts.sample in samples]


def exclude(windows: Sequence[ReplayedWindow], path: Path, reason: str) -> int:
    """Add the series of these windows to a file of `data.exclude`; how many were not there yet."""
    from foreloom.data.stream.selection import append_excluded

    facts = [window.facts for window in windows]
    return append_excluded(
        path, [{"source": one.source, "item": one.item, "series": one.series, "reason": reason} for one in facts]
    )


def write_facts(facts: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A CSV with a row a window, or whatever else a sample is made of."""
    with whole_or_absent(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(facts[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(facts)


def facts_table(facts: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Facts as they are, a column each."""
    from rich import box
    from rich.table import Table

    table = Table(*facts[0], title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for row in facts:
        table.add_row(*(str(value) for value in row.values()))
    return table


def window_table(windows: Sequence[ReplayedWindow], title: str) -> Table:
    """For the console, narrow enough for 80 columns: what is nowhere (infinite values, mostly) is left out."""
    from rich import box
    from rich.table import Table

    rows = [_cells(window.facts) for window in windows]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=0, pad_edge=False)
    for name in columns:
        is_text = name in ("source", "series")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    return table


def _cells(facts: WindowFacts) -> dict[str, str]:
    return {
        "sample": str(facts.sample),
        "source": Path(short_name(facts.source).partition("?")[0]).stem,
        "series": facts.series,
        "cut": f"{facts.cut:,}",
        "steps": f"{facts.num_steps:,}",
        "min": _number(facts.least),
        "max": _number(facts.greatest),
        "missing": f"{facts.missing_share:.0%}" if facts.missing_share else "",
        "infinite": f"{facts.num_infinite:,}" if facts.num_infinite else "",
        "jump": f"{facts.largest_jump:.1f}",
    }


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
