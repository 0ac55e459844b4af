"""Plans, simulations and scalings for people, in tables of 80 columns, with what is assumed below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from foreloom.monitoring.console import duration
from foreloom.monitoring.health import bytes_in_words
from foreloom.plan.communication import KINDS
from foreloom.plan.scale import Scaling
from foreloom.plan.simulate import Simulation
from foreloom.plan.ways import Plan, Way
from foreloom.report.tables import print_whole

if TYPE_CHECKING:
    from rich.table import Table

_TERMS = {
    "weights": ("weights",),
    "grads": ("gradients",),
    "optim.": ("optimizer",),
    "gath.": ("gathered",),
    "activ.": ("activations",),
    "logits": ("logits",),
    "other": ("inputs", "working"),
}
"""Columns of memory, and the terms of `run.memory.TERMS` in each."""
_MOST_TENSORS = 8


def print_plan(plan: Plan, name: str) -> None:
    """On the console, at any width without losing a figure."""
    from rich.console import Console

    console = Console()
    say = lambda text="": console.print(text, highlight=False, markup=False)
    counts = plan.counts
    trained = "" if counts.trained == counts.total else f" ({millions(counts.trained)} trained)"
    say(f"{name} on {plan.where}, {plan.precision}: {millions(counts.total)} parameters{trained}")
    per_row, per_step = plan.flops_per_row / 1e9, plan.flops_per_row * plan.batch_size / 1e12
    length = f", {plan.num_steps:,} steps" if plan.num_steps else ""
    say(f"{per_row:,.4g} GFLOPs a row, {per_step:,.4g} TFLOPs a step of {plan.batch_size:,} rows{length}")
    say()
    largest = max(way.memory.total for way in plan.ways)
    unit, size = ("GB", 2**30) if largest >= 2**30 else ("MB", 2**20)
    print_whole(Console(), _memory_table(plan.ways, size), f"Memory of a GPU with the most rows that fit, {unit}")
    largest = max(max(way.moved.values()) for way in plan.ways)
    unit, size = ("GB", 1e9) if largest >= 1e9 else ("MB", 1e6)
    print_whole(Console(), _time_table(plan.ways, size), f"What a GPU sends in a step, {unit}, and how long it takes")
    say("A GB of memory is 2^30 bytes, a GB that is sent 10^9.")
    say("kept: all activations; recomp.: blocks are computed again in the backward pass (activation checkpointing).")
    for way in plan.ways:
        if way.name == "HSDP" and not way.recomputes:
            say(f"HSDP: {way.dp_replicate:,} copies of the model, of {way.dp_shard:,} shares each.")
    if plan.split:
        say(f"* is the recipe's way: {plan.split}")
    for note in plan.notes:
        say(note)


def print_simulation(simulation: Simulation, name: str) -> None:
    """What rank 0 held and sent, and the largest tensors."""
    from rich.console import Console

    console, its = Console(), simulation
    say = lambda text="": console.print(text, highlight=False, markup=False)
    say(
        f"{name}, one step as rank 0 of {its.num_ranks:,} that are not there: FSDP2, {its.dp_replicate:,} x "
        f"{its.dp_shard:,}; {its.num_micro_batches:,} micro-batches of {its.num_rows:,} rows"
    )
    held = ", ".join(f"{bytes_in_words(size)} of {term}" for term, size in its.held_bytes.items())
    say(f"Of {millions(its.num_parameters)} parameters this rank holds {held}.")
    number, less = len(its.tensors), sum(one.last_rows < one.first_rows for one in its.tensors)
    none = sum(not one.last_rows for one in its.tensors)
    say(f"Cut along their first dimension, the last rank has less of {less:,} of {number:,} tensors; none of {none:,}.")
    say()
    grid = _grid(["", "issued", "sent, MB", "by formula, MB"])
    for kind in (kind for kind in KINDS if its.num_collectives[kind] or kind != "all-to-all"):
        sent, formula = its.sent_bytes[kind] / 1e6, its.formula_bytes[kind] / 1e6
        grid.add_row(kind, f"{its.num_collectives[kind]:,}", f"{sent:,.2f}", f"{formula:,.2f}")
    print_whole(Console(), grid, "What the rank sends in the step")
    grid = _grid(["", "shape", "rank 0", "last rank"])
    for one in its.tensors[:_MOST_TENSORS]:
        grid.add_row(one.name, " x ".join(map(str, one.shape)), f"{one.first_rows:,}", f"{one.last_rows:,}")
    print_whole(Console(), grid, "The largest tensors, and the rows of theirs that ranks hold")
    say("All-reduce besides what the formula knows: loss, norm, count and tally.")


def print_scaling(scaling: Scaling, name: str, where: str) -> None:
    """A line a number of GPUs, a column a strategy."""
    from rich.console import Console

    strategies = list(dict.fromkeys(one.strategy for one in scaling.points))
    grid = _grid(["GPUs", *strategies, *strategies])
    grid.add_row("", *("batch grows" for _ in strategies), *("batch stays" for _ in strategies), style="dim")
    for number in dict.fromkeys(one.num_gpus for one in scaling.points):
        its = {one.strategy: one for one in scaling.points if one.num_gpus == number}
        grows = [_range(its[one].grows) for one in strategies]
        grid.add_row(f"{number:,}", *grows, *(_range(its[one].stays) for one in strategies))
    print_whole(Console(), grid, f"{name} on {where}: efficiency, % of as many times one GPU")
    for note in scaling.notes:
        Console().print(note, highlight=False, markup=False)


def _range(efficiency: tuple[float, float] | None) -> str:
    if efficiency is None:
        return ""
    low, high = (f"{100 * one:.0f}" for one in efficiency)
    return low if low == high else f"{low}-{high}"


def _memory_table(ways: Sequence[Way], unit: int) -> Table:
    grid = _grid(["", "rows x\nparts", *_TERMS, "in all"])

    def cells(way: Way) -> list[str]:
        terms = [sum(way.memory.terms[term] for term in of) for of in _TERMS.values()]
        cut = f"{way.fits} x {way.num_micro_batches}" if way.fits else "no row"
        return [_label(way), cut, *(_figure(size / unit) for size in (*terms, way.memory.total))]

    return _filled(grid, ways, cells)


def _time_table(ways: Sequence[Way], unit: float) -> Table:
    kinds = [kind for kind in KINDS if kind != "all-to-all" or any(way.moved[kind] for way in ways)]
    grid = _grid(["", *(kind.replace("-", "-\n") for kind in kinds), "compute", "move", "step", "run", "kWh", "price"])

    def cells(way: Way) -> list[str]:
        if not way.fits:
            return [_label(way)]
        moved = [_figure(way.moved[kind] / unit) for kind in kinds]
        times = [seconds(one) for one in (way.step.compute, way.step.communication, way.step.total)]
        run = way.run
        energy = "" if run is None or run.kwh is None else _figure(run.kwh)
        price = "" if run is None or run.price is None else f"{run.price:,.0f}"
        took = duration(run.seconds) if run else ""
        return [_label(way), *moved, *times, took, energy, price]

    return _filled(grid, ways, cells)


def _grid(names: Sequence[str]) -> Table:
    import rich.box
    from rich.table import Table

    grid = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for i, name in enumerate(names):
        grid.add_column(name, justify="right" if i else "left", no_wrap=True)
    return grid


def _filled(grid: Table, ways: Sequence[Way], cells: Callable[[Way], list[str]]) -> Table:
    """A part for ways that keep activations, one for those that recompute blocks."""
    for recomputes, title in ((False, "kept"), (True, "recomp.")):
        part = [way for way in ways if way.recomputes == recomputes]
        if part:
            grid.add_row(title, style="dim")
        for way in part:
            grid.add_row(*cells(way), style="bold" if way.is_recipes else None)
        grid.add_section()
    return grid


def _label(way: Way) -> str:
    return f"{way.name}{' *' if way.is_recipes else ''}"


def _figure(number: float) -> str:
    """Three digits that matter, and none behind the point of what is large."""
    return (
        f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}" if number else "0"
    )


def seconds(number: float) -> str:
    """1.23 s, 45 ms, 6 us."""
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e-6:.3g} us"


def millions(number: int) -> str:
    """119.5M, 1.20B."""
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.1f}M"
