"""`foreloom data replay`: the batch of a step of a run, drawn once more from the data and shown to people."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreloom.data.synthetic.address import short_name
from foreloom.files import whole_or_absent

if TYPE_CHECKING:
    from rich.table import Table

    from foreloom.data.stream.replay import ReplayedWindow, WindowFacts

MAX_SHOWN = 20
"""Windows in the table on the console, the most suspicious ones."""
NUM_DRAWN = 8


def replay_and_print(
    run_dir: Path,
    step: int,
    *,
    out: Path | None = None,
    plot: Path | None = None,
    quarantine: Path | None = None,
    samples: Sequence[int] = (),
) -> None:
    """Rebuild exactly the global batch of a step and print its windows, the most suspicious first.

    `out` is a CSV of all windows in stream order, `plot` a picture (.svg, .png or .pdf) of the most suspicious ones.
    `quarantine` is a file that the series of `samples`, indices of the stream as the table shows them, are added to.
    Works for every step the run has made, also where a resumed run changed its
    batch size. Raises ValueError for a folder that is no run, a step it has not made, a sample that is not in the
    batch, data that have changed since, and for `quarantine` and `samples` without each other.
    """
    from rich.console import Console

    from foreloom.data.stream.replay import by_suspicion
    from foreloom.data.stream.selection import append_quarantine
    from foreloom.report.replay_figure import replay_figure
    from foreloom.report.style import save_figure

    if (quarantine is None) != (not samples):
        raise ValueError("give --quarantine FILE and --samples together: where to write, and which series.")
    windows = batch_of(run_dir, step)
    suspects = by_suspicion(windows)
    chosen = _chosen(windows, samples, step)
    console = Console()
    console.print(_table(suspects[:MAX_SHOWN], f"Step {step:,} of {run_dir.name}: {_count(windows)}"))
    if len(suspects) > MAX_SHOWN:
        advice = "" if out else "; --out FILE.csv writes all"
        console.print(f"{len(suspects) - MAX_SHOWN:,} more, less suspicious{advice}", highlight=False)
    if out is not None:
        _write_csv(windows, out)
        console.print(f"wrote {out}", highlight=False, soft_wrap=True)
    if plot is not None:
        save_figure(replay_figure(suspects[:NUM_DRAWN]), plot)
        console.print(f"wrote {plot}", highlight=False, soft_wrap=True)
    if quarantine is not None:
        reason = f"step {step} of {run_dir.resolve().name}"
        entries = [
            {"source": one.facts.source, "item": one.facts.item, "series": one.facts.series, "reason": reason}
            for one in chosen
        ]
        num_added = append_quarantine(quarantine, entries)
        console.print(
            f"added {num_added} series to {quarantine}; a run leaves them out with data.quarantine={quarantine}",
            highlight=False,
            soft_wrap=True,
        )


def batch_of(run_dir: Path, step: int) -> list[ReplayedWindow]:
    """The windows of the global batch that a step of a run was made of, in stream order.

    Raises ValueError as `replay_and_print` does.
    """
    from foreloom import run
    from foreloom.data.loader import BatchLoader
    from foreloom.monitoring.metrics_file import FILE_NAME, read_records
    from foreloom.training.incidents import anchors, position_of

    for name in (run.RECIPE_NAME, FILE_NAME):
        if not (run_dir / name).is_file():
            raise ValueError(f"{run_dir} is no run folder: it has no {name}.")
    recipe = run.load(run_dir / run.RECIPE_NAME, need_data=False)  # the benchmark's may be gone by now
    data, seed = recipe.sections["data"], recipe.sections["training"].seed
    records = list(read_records(run_dir))
    last_step = max((record["step"] for record in records if record.get("step")), default=0)
    dataset = data.open(seed)
    place = position_of(
        step, anchors(records), last_step, lambda batch_size: BatchLoader(dataset, batch_size=batch_size)
    )
    return dataset.replay(place.loader.drawn(place.first_sample))


def _chosen(windows: Sequence[ReplayedWindow], samples: Sequence[int], step: int) -> list[ReplayedWindow]:
    there = [window.facts.sample for window in windows]
    if absent := [str(sample) for sample in samples if sample not in there]:
        raise ValueError(
            f"step {step:,} holds the samples {min(there)} to {max(there)}, and not {', '.join(absent)}; the table's "
            "first column has their numbers."
        )
    return [window for window in windows if window.facts.sample in samples]


def _count(windows: Sequence[ReplayedWindow]) -> str:
    num_samples = len({window.facts.sample for window in windows})
    return f"{num_samples:,} samples, {len(windows):,} windows"


def _table(windows: Sequence[ReplayedWindow], title: str) -> Table:
    from rich import box
    from rich.table import Table

    rows = [_cells(window.facts) for window in windows]
    # Narrow enough for 80 columns: what is nowhere (infinite values, mostly) is left out.
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


def _write_csv(windows: Sequence[ReplayedWindow], path: Path) -> None:
    rows: list[dict[str, Any]] = [dataclasses.asdict(window.facts) for window in windows]
    with whole_or_absent(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
