"""Scaling on paper: what share of their work many GPUs would keep, from what one takes, bytes moved and bandwidths."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foreloom.config.loader import Recipe
from foreloom.distributed.mesh import MeshShape
from foreloom.models import registry
from foreloom.plan.cluster import Cluster
from foreloom.plan.communication import (
    MASTER_BYTES,
    ParameterCounts,
    SharedExperts,
    collectives_of_step,
    count_parameters,
    count_shards,
)
from foreloom.plan.estimate import StepTime, time_step
from foreloom.plan.ways import tensors_of
from foreloom.report.figures import PANEL_INCHES, panel_title
from foreloom.report.style import BLUE, INK, ORANGE, styled
from foreloom.run.memory import count_step
from foreloom.run.recipe import choose_trained, data_of, shapes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRATEGIES = ("DDP", "FSDP2", "HSDP")


@dataclass(frozen=True)
class Efficiency:
    """Of one strategy on so many GPUs: rows a second, over as many times what one GPU makes."""

    strategy: str
    num_gpus: int
    grows: tuple[float, float]
    """Where each GPU keeps its rows: with nothing of what is moved hidden behind computing, and with all of it."""
    stays: tuple[float, float] | None
    """Where the global batch is the recipe's, alike; None where it has fewer rows than there are GPUs."""


@dataclass(frozen=True)
class Scaling:
    """Efficiencies by number of GPUs, and what is assumed."""

    points: tuple[Efficiency, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def parse_range(text: str) -> list[int]:
    """`1..1024`: powers of two from the first on, and the last. ValueError for anything else."""
    found = re.fullmatch(r"(\d+)\.\.(\d+)", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]) <= 2**20:
        raise ValueError(f"--scale {text}: write the fewest and the most GPUs, 1..1024.")
    first, last = int(found[1]), int(found[2])
    numbers = [first]
    while numbers[-1] * 2 <= last:
        numbers.append(numbers[-1] * 2)
    return numbers if numbers[-1] == last else [*numbers, last]


def scale(recipe: Recipe, cluster: Cluster, precision: str, numbers: Sequence[int], seconds: float | None) -> Scaling:
    """`seconds`: forward and backward of one GPU's share of the batch on `cluster`, as measured; by the stated MFU
    where it is None."""
    training, model = recipe.sections["training"], shapes_of(recipe)
    flops_per_row = registry.get(recipe.sections["model"].family).flops_per_row(model, data_of(recipe))
    choose_trained(model, recipe)
    tensors = tensors_of(recipe, model)
    counts = count_parameters(tensors)
    share = -(-training.batch_size // cluster.num_gpus)
    recipes, exchanged_a_row = recipe.sections["parallel"].ep, 0
    if recipes > 1:
        largest = data_of(recipe).full_rows
        use_of = count_step(recipe, largest, 1, device="cuda", keeps_gradients=True, is_sharded=False)
        exchanged_a_row = use_of(1, False).exchanged_bytes

    def step_of(shape: MeshShape, rows: int) -> StepTime:
        micro = share if training.micro_batch_size in (0, "auto") else training.micro_batch_size
        micro = min(micro, rows)
        filled, of_experts = count_shards(tensors, shape)
        step = time_step(
            cluster,
            flops=flops_per_row * rows,
            collectives=collectives_of_step(
                filled,
                shape,
                num_micro_batches=-(-rows // micro),
                compute_bytes=2 if precision == "bf16" else MASTER_BYTES,
                per_machine=cluster.per_machine,
                experts=SharedExperts(of_experts, micro * exchanged_a_row),
            ),
            optimizer=recipe.sections["optimizer"].name,
            num_updated=filled.trained / shape.dp_shard + of_experts.trained / shape.ep,
            recomputes=training.activation_checkpointing,
        )
        return step if seconds is None else dataclasses.replace(step, compute=seconds * rows / share)

    points = []
    for strategy in STRATEGIES if counts.in_blocks else STRATEGIES[:1]:
        for number in numbers:
            shape = shape_of(strategy, number, cluster.per_machine, math.gcd(number, recipes))
            rows = -(-training.batch_size // number)
            grows = _efficiency(step_of(shape, share), step_of(_ALONE, share), number, share * number, share)
            stays = None
            if number <= training.batch_size:
                alone = step_of(_ALONE, training.batch_size)
                stays = _efficiency(step_of(shape, rows), alone, number, training.batch_size, training.batch_size)
            points.append(Efficiency(strategy, number, grows, stays))
    return Scaling(tuple(points), tuple(_assumptions(cluster, counts, share, seconds, training)))


_ALONE = MeshShape("ddp", 1, 1)


def shape_of(strategy: str, num_gpus: int, per_machine: int, ep: int = 1) -> MeshShape:
    """The mesh of a strategy; HSDP has a copy a machine, and is FSDP2 within one."""
    if strategy == "DDP" or num_gpus == 1:
        return MeshShape("ddp", num_gpus, 1, ep)
    is_whole = strategy == "FSDP2" or num_gpus <= per_machine or num_gpus % per_machine
    num_copies = 1 if is_whole else num_gpus // per_machine
    return MeshShape("fsdp", num_copies, num_gpus // num_copies, ep)


def _efficiency(step: StepTime, alone: StepTime, number: int, rows: int, rows_alone: int) -> tuple[float, float]:
    of = lambda seconds: rows / seconds / (number * rows_alone / alone.total)
    return of(step.compute + step.communication + step.update), of(step.total)


def _assumptions(
    cluster: Cluster, counts: ParameterCounts, share: int, seconds: float | None, training: Any
) -> list[str]:
    gpu = cluster.accelerator
    given = f"as measured ({seconds:g} s)" if seconds is not None else f"at {cluster.mfu:.0%} of the peak (--mfu)"
    return [
        "From: nothing of what is moved hidden behind computing. To: all of it. Ranges, not forecasts.",
        f"Rows a GPU: {share:,} where the batch grows with the GPUs, a part of {training.batch_size:,} where it stays. "
        f"Forward and backward of {share:,} rows take what they take {given}, in proportion to the rows: that few rows "
        "fill a GPU less is left out, and so are the waiting of messages, slow ranks, data and checkpoints.",
        f"{counts.trained / 1e6:,.1f}M trained parameters; rings; {gpu.link / 1e9:,.4g} GB/s to the GPUs of the "
        f"machine, {gpu.network / 1e9:,.4g} GB/s out of a machine of {cluster.per_machine}, one way and fully used. "
        "HSDP: a copy of the model in each machine.",
    ]


@styled
def scaling_figure(scaling: Scaling) -> Figure:
    """Efficiency over GPUs, a band a strategy: a growing batch on the left, the recipe's on the right."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    width, height = PANEL_INCHES
    figure = Figure(figsize=(2 * width, height), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, title in zip(axes, ("the batch grows with the GPUs", "the batch stays"), strict=True):
        panel_title(ax, title)
        ax.set_xscale("log", base=2)
        ax.set_xlabel("GPUs")
        ax.set_ylim(0, 1.08)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.xaxis.set_major_formatter("{x:,.0f}")
    for strategy, colour in zip(STRATEGIES, (BLUE, ORANGE, INK), strict=True):
        mine = [one for one in scaling.points if one.strategy == strategy]
        grows = [(one.num_gpus, *one.grows) for one in mine]
        stays = [(one.num_gpus, *one.stays) for one in mine if one.stays]
        for ax, points in zip(axes, (grows, stays), strict=True):
            if points:
                numbers, low, high = zip(*points, strict=True)
                ax.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
                ax.plot(numbers, low, color=colour, label=strategy if ax is axes[0] else None)
    figure.legend(loc="outside upper left", ncols=len(STRATEGIES))
    return figure
