"""Do the ranks of a launch belong together? The same code, recipe and versions, different data, gradients that agree.

What is asked of all ranks is collective; what it means is judged by pure functions.
"""

from __future__ import annotations

import time
import typing
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foreloom.checkpoint.manifest import installed_versions
from foreloom.config.loader import Recipe, flatten, plain
from foreloom.data.batch import Dataset
from foreloom.data.loader import BatchLoader, StepBatch
from foreloom.distributed.agreement import check_disjoint, code_files, differences
from foreloom.distributed.launcher import Launch
from foreloom.distributed.mesh import MeshShape, ParallelConfig
from foreloom.distributed.parallelize import ParallelModel, parallelize
from foreloom.distributed.process import Process
from foreloom.distributed.reduce import gather_objects, sum_over_ranks
from foreloom.doctor.finding import Finding, ok
from foreloom.models import registry
from foreloom.models.family import ModelFamily
from foreloom.monitoring.health import bytes_in_words
from foreloom.run.recipe import data_of, found_model, shapes_of
from foreloom.training.optimizer import build_optimizer
from foreloom.training.state import LaneCarry
from foreloom.training.step import OptimizerStep
from foreloom.training.stopwatch import Stopwatch

_MOST_SKEW_SECONDS = 1.0
_MOST_ERROR = 1e-4
"""Of a gradient, relative to its norm: sums in another order differ by some 1e-6."""
_MOST_PARAMETERS = {"cuda": 300e6, "cpu": 20e6}
"""Of a recipe's own model; of a larger one the smallest of its family is tried."""
_SENT_BYTES = {"cuda": 2**28, "cpu": 2**24}
_SLOW_LINK = 1e9
"""Bytes a second between GPUs."""


class Place(NamedTuple):
    """Where a rank is."""

    machine: str
    device: str


def check_ranks(recipe: Recipe, tried: Recipe, process: Process, launch: Launch, machine: str) -> list[Finding]:
    """What all ranks find together, the same on each. Collective. Where they differ in what they are, nothing is
    computed. `tried`: a recipe whose model and data are there on every rank."""
    device = torch.cuda.get_device_name(process.device) if process.device.type == "cuda" else process.device.type
    places = gather_objects(Place(machine, device), process)
    settings = {key: str(value) for key, value in flatten(plain(recipe.sections)).items()}
    versions = {**installed_versions(), "CUDA": str(torch.version.cuda)}
    same = [
        judge_same("same code", gather_objects(code_files(), process), "copy one checkout to all machines"),
        judge_same("same recipe", gather_objects(settings, process), "start all ranks with one recipe and overrides"),
        judge_same("same versions", gather_objects(versions, process), "install the same on all machines"),
    ]
    rows = [judge_places(places, launch.launcher), judge_clocks(_clocks(process)), *same]
    rows.append(judge_bandwidth(*_bandwidth(process), _num_parameters(tried), process))
    if any(one.state == "failure" for one in same):
        return rows
    return [*rows, *_check_data_and_gradients(tried, process)]


def judge_places(places: Sequence[Place], launcher: str) -> Finding:
    """Where the ranks are, and on what."""
    by_machine: dict[str, int] = {}
    for place in places:
        by_machine[place.machine] = by_machine.get(place.machine, 0) + 1
    devices = sorted({place.device for place in places})
    spread = ", ".join(f"{machine}: {count}" for machine, count in by_machine.items())
    found = f"{len(places)} by {launcher} ({spread}), on {' and '.join(devices)}"
    if len(devices) > 1:
        remedy = "leave the odd ones out by --node ADDRESS:2,3 or CUDA_VISIBLE_DEVICES"
        return Finding("ranks", "warning", f"{found}: all wait for the slowest", remedy)
    return ok("ranks", found, len(places))


def judge_same(name: str, of_ranks: Sequence[Mapping[str, str]], remedy: str) -> Finding:
    """Is a set of facts alike on all ranks? If not, which differ is told."""
    told = differences(of_ranks)
    return Finding(name, "failure", told, remedy) if told else ok(name, f"on all {len(of_ranks)} ranks")


def judge_clocks(skew_seconds: float) -> Finding:
    """Logs of machines whose clocks differ cannot be read together, and files seem to come from the future."""
    found = f"{skew_seconds * 1000:.0f} ms apart at most"
    if skew_seconds > _MOST_SKEW_SECONDS:
        return Finding("clocks", "warning", found, "let chrony or ntpd keep the time on all machines", skew_seconds)
    return ok("clocks", found, skew_seconds)


def judge_bandwidth(num_bytes: int, seconds: float, num_parameters: int, process: Process) -> Finding:
    """How fast ranks add up: bytes that each sends and receives, as a ring does it, in a second."""
    n = process.world_size
    speed = 2 * (n - 1) / n * num_bytes / seconds
    a_step = seconds * 4 * num_parameters / num_bytes
    found = f"{bytes_in_words(num_bytes)} in {seconds * 1000:.1f} ms, {speed / 1e9:.2f} GB/s; the gradients of "
    found += f"{num_parameters / 1e6:,.1f}M parameters take {a_step:.3f} s"
    if process.device.type == "cuda" and speed < _SLOW_LINK:
        remedy = (
            "NCCL_DEBUG=INFO tells what it uses; NCCL_SOCKET_IFNAME names the interface (docs/training_at_scale.md)"
        )
        return Finding("all-reduce", "warning", f"{found}: slow for GPUs", remedy, speed)
    return ok("all-reduce", found, speed)


def judge_gradients(error: float, what: str) -> Finding:
    """Are the gradients of one rank with the whole batch those of all ranks with a share each?"""
    found = f"of {what}: one rank with all rows and all ranks with their share differ by {error:.1e} of the norm"
    if not error <= _MOST_ERROR:
        remedy = "train on one device until this is understood: try NCCL_P2P_DISABLE=1, another driver, other GPUs"
        return Finding("same gradients", "failure", found, remedy, error)
    return ok("same gradients", found, error)


def _clocks(process: Process) -> float:
    """The most that clocks are apart, in seconds, as seen at a moment that all share; the best of three tries."""
    spreads = []
    for _ in range(3):
        sum_over_ranks(torch.zeros(1), process)
        moments = gather_objects(time.time(), process)
        spreads.append(max(moments) - min(moments))
    return min(spreads)


def _bandwidth(process: Process) -> tuple[int, float]:
    """Bytes of a tensor, and the seconds that adding it up over ranks takes; the best of four."""
    num_bytes = _SENT_BYTES[process.device.type]
    tensor = torch.zeros(num_bytes // 4, device=process.device)
    seconds = []
    for _ in range(5):
        if process.device.type == "cuda":
            torch.cuda.synchronize(process.device)
        began = time.perf_counter()
        sum_over_ranks(tensor, process)
        float(tensor[0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return num_bytes, max(gather_objects(min(seconds[1:]), process))


def _num_parameters(recipe: Recipe) -> int:
    return sum(p.numel() for p in shapes_of(recipe).parameters())


def _check_data_and_gradients(recipe: Recipe, process: Process) -> list[Finding]:
    """Of the first samples of the recipe's stream, two a rank."""
    num_samples = 2 * process.world_size
    dataset = data_of(recipe).open(recipe.sections["training"].seed, batch_size=num_samples)
    num_rows = int(dataset.draw(0, num_samples).num_rows_N.sum())  # one of a group has several
    try:
        check_disjoint(_batch(dataset, num_rows, process).samples.tolist(), process)
    except ValueError as error:
        drawn = Finding("different data", "failure", str(error), "report it: the loader promises that this cannot be")
    else:
        drawn = ok("different data", f"of the first {num_samples} samples none is drawn twice")
    return [drawn, _check_gradients(recipe, dataset, num_rows, process)]


def _check_gradients(recipe: Recipe, dataset: Dataset, num_rows: int, process: Process) -> Finding:
    """Forward and backward of the first rows, by each rank alone and by all together."""
    section, what = found_model(recipe), recipe.path.stem
    family = registry.get(section.family)
    if _num_parameters(recipe) > _MOST_PARAMETERS[process.device.type]:
        smallest = typing.get_args(typing.get_args(typing.get_type_hints(type(section))["size"])[0])[0]
        section, what = type(section)(family=section.family, size=smallest), f"{section.family} {smallest}"
    model = family.build(section, data_of(recipe))
    if section.pretrained is None:
        family.initialize(model, recipe.sections["training"].seed)
    model.to(process.device).eval()  # ranks would drop other activations
    one = Process(0, 1, process.local_rank, process.device)
    whole = ParallelModel(model, model, MeshShape("ddp", 1, 1), None)
    alone = _gradients(recipe, family, whole, _batch(dataset, num_rows, one), num_rows, one)
    model.zero_grad()
    shared = parallelize(model, family.sharding, ParallelConfig(strategy="ddp"), process)
    together = _gradients(recipe, family, shared, _batch(dataset, num_rows, process), num_rows, process)
    apart, size = _norm([a - b for a, b in zip(alone, together, strict=True)]), _norm(alone)
    return judge_gradients(max(gather_objects(apart / size, process)), what)


def _batch(dataset: Dataset, num_rows: int, process: Process) -> StepBatch:
    ranks = {"rank": process.rank, "world_size": process.world_size}
    return BatchLoader(dataset, batch_size=num_rows, num_prefetch=0, **ranks).batch(0)


def _gradients(
    recipe: Recipe, family: ModelFamily, parallel: ParallelModel, batch: StepBatch, num_rows: int, process: Process
) -> list[Tensor]:
    """Of the loss sum over a global batch of `num_rows`, this rank's share of which is `batch`; copied."""
    optimizer = build_optimizer(
        recipe.sections["optimizer"], parallel.named_parameters(), family.kinds(parallel.model), max_grad_norm=0.0
    )
    carry = LaneCarry(family.carry(parallel.model, num_rows, process.device), process) if family.carry else None
    step = OptimizerStep(parallel, family, optimizer, process, Stopwatch(process.device), carry)
    step.gradients(batch.micro_batches, batch.first_sample)
    return [p.grad.detach().clone() for p in step.parameters if p.grad is not None]


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(nn.utils.get_total_norm(tensors, error_if_nonfinite=False))
