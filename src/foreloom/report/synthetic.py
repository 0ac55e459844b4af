"""`foreloom data synth`: writes and draws synthetic series, and lists the processes, for people."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foreloom.data.convert import convert
from foreloom.data.formats.reader import open_source
from foreloom.data.synthetic import registry
from foreloom.data.synthetic.address import is_synthetic, parse_settings, write_address
from foreloom.data.synthetic.source import SyntheticSource
from foreloom.report.style import BLUE, check_picture_name, save_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS_AT_ONCE = 2**16
_NUM_PANELS = 6
_PANEL_INCHES = (3.6, 1.25)


def synth_and_print(
    process: str,
    settings: Sequence[str],
    *,
    num_series: int,
    length: str | None,
    seed: int,
    out: Path | None,
    plot: Path | None,
) -> None:
    """Write series 0 to `num_series` - 1 of a process to `out` (.arrow, .parquet), draw some into `plot`, or both.

    `settings` are name=value. Prints the address that streams the same series, and how many there are of each kind.
    Raises ValueError for what the process does not take, for a file that exists already and for a name with a wrong
    ending, before anything is written.
    """
    if out is None and plot is None:
        raise ValueError("say what to do with the series: --out FILE.arrow writes them, --plot FILE.svg draws some.")
    if plot is not None:
        check_picture_name(plot)
    if is_synthetic(process):
        raise ValueError(
            f"{process}: give the name of the process alone, and its settings after it: kernel max_kernels=3."
        )
    given = parse_settings(settings)
    if options := [name for name in ("num_series", "length", "seed") if name in given]:
        raise ValueError(
            f"{', '.join(options)}: say it as an option: --{options[0].replace('_', '-')} {given[options[0]]}."
        )
    values = {"num_series": str(num_series)} | ({"length": length} if length else {}) | {"seed": str(seed)}
    address = write_address(process, values | given)
    source = SyntheticSource(address, open_source)
    if out is not None:
        convert(address, out, "parquet" if out.suffix == ".parquet" else "arrow")
        print(f"wrote {num_series:,} series, {int(source.lengths.sum()):,} steps, to {out}")
    if plot is not None:
        save_figure(synthetic_figure(source), plot)
        print(f"wrote {plot}")
    print(f"the same in a recipe: {source.name}")
    counts = Counter(kind for kinds in _kinds(source) for kind in kinds)
    width = max(map(len, counts))
    for kind, count in counts.most_common():
        print(f"{kind:<{width}}  {count:>{len(f'{num_series:,}')},}  {count / num_series:>4.0%}")


def print_processes() -> None:
    """All processes: a sentence each, and their settings."""
    for name in registry.names():
        process = registry.get(name)
        print(f"{name}\n  {process.sentence}\n  length={process.length}")
        for field in dataclasses.fields(process.settings):
            text = " ".join(str(process.settings.__pydantic_fields__[field.name].description).split())
            print(f"  {field.name}={_shown(field.default)}  {text}")


@styled
def synthetic_figure(source: SyntheticSource) -> Figure:
    """Six series with their kinds, of as many different kinds as there are among the first hundred."""
    from matplotlib.figure import Figure

    items = _varied(source.kinds(np.arange(min(len(source), 100))), _NUM_PANELS)
    num_rows = -(-len(items) // 2)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(2 * width, height * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, 2, squeeze=False).ravel()
    for ax, item in zip(axes, items, strict=False):
        series = source.read(item)
        ax.plot(series.target_VT[0], color=BLUE, linewidth=0.8)
        ax.set_title(series.static["kind"], fontsize=8)
        ax.margins(x=0.01)
        ax.tick_params(labelsize=7)
        ax.locator_params(nbins=4)
    for ax in axes[len(items) :]:
        ax.set_visible(False)
    return figure


def _varied(kinds: Sequence[str], count: int) -> list[int]:
    """Places of `count` series: of every kind the first, then of every kind the second, and so on."""
    seen: Counter[str] = Counter()
    rank = []
    for kind in kinds:
        rank.append(seen[kind])
        seen[kind] += 1
    return sorted(np.argsort(rank, kind="stable")[:count].tolist())


def _kinds(source: SyntheticSource) -> Iterable[Sequence[str]]:
    for first in range(0, len(source), _KINDS_AT_ONCE):
        yield source.kinds(np.arange(first, min(first + _KINDS_AT_ONCE, len(source))))


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
