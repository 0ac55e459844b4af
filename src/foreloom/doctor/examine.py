"""The whole examination: what this machine has for a recipe and, where a launcher started us, what its ranks find."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from foreloom.config.loader import Recipe
from foreloom.config.located import RecipeError
from foreloom.data.stream.series import SeriesData
from foreloom.distributed.launcher import Launch, read_launch
from foreloom.distributed.process import among_ranks, prepare, start
from foreloom.distributed.reduce import gather_objects
from foreloom.doctor import facts, judge
from foreloom.doctor.finding import Finding, of_machines
from foreloom.doctor.ranks import check_ranks
from foreloom.models import registry
from foreloom.monitoring.accelerators import peak_flops
from foreloom.run.machine import find_machine, ranks_on_machine
from foreloom.run.recipe import data_of, load, shapes_of

STAND_IN = "quickstart"
"""The recipe that ranks try where none is given, or its model or data are not there."""
_TIMEOUT_MINUTES = 2.0
_USUAL_MFU = 0.4
"""Of a GPU's peak: what a step is taken to use."""


def examine(
    path: str | None,
    overrides: Sequence[str] = (),
    *,
    ranks_here: int | None = None,
    run_dir: Path | None = None,
    port: int,
) -> list[Finding]:
    """Findings about this machine and the recipe's needs; under a launcher about all of its machines and ranks, the
    same on every rank (collective). ValueError for a recipe that is wrong in itself."""
    launch = read_launch(os.environ)
    if launch.world_size == 1:
        recipe = load(path, overrides, need_data=False) if path else None
        return _here(recipe, path, overrides, ranks_here or 1, run_dir, port)[0]
    with among_ranks():
        recipe = prepare(lambda: load(path, overrides, need_data=False) if path else None, lambda _: _TIMEOUT_MINUTES)
        ranks = ranks_here or ranks_on_machine(world_size=launch.world_size)
        return _of_all(recipe, path, overrides, ranks, run_dir, launch)


def _of_all(
    recipe: Recipe | None, path: str | None, overrides: Sequence[str], ranks: int, run_dir: Path | None, launch: Launch
) -> list[Finding]:
    machine = find_machine().hostname
    stand_in = load(STAND_IN)
    device = recipe.sections["training"].device if recipe else "auto"
    process = start(device, timeout_minutes=_TIMEOUT_MINUTES)
    rows, is_complete = (None, True)
    if launch.local_rank == 0:
        rows, is_complete = _here(recipe, path, overrides, ranks, run_dir, launch.port)
    machines = {name: own for name, own in gather_objects((machine, rows), process) if own is not None}
    tried = recipe if recipe and all(gather_objects(is_complete, process)) else stand_in
    together = check_ranks(recipe or stand_in, tried, process, launch, machine)
    # Ranks have met at the port, so it is theirs.
    return [one for one in of_machines(machines) if one.name != "port"] + together


def _here(
    recipe: Recipe | None, path: str | None, overrides: Sequence[str], ranks: int, run_dir: Path | None, port: int
) -> tuple[list[Finding], bool]:
    """The findings of this machine, and whether all is there that the recipe names."""
    rows, size, hub_id = [], None, ""
    if recipe and path:
        hub_id = _hub_id(recipe)
        problems, size = _look_at(recipe, path, overrides, hub_id)
        model = f"{path}: {size:,} parameters" if size else f"{path}: begins with {hub_id}"
        rows = [judge.judge_recipe(problems, model)]
    need = _need(recipe, ranks, size)
    if recipe and size and rows[0].state == "ok" and isinstance(recipe.sections["data"], SeriesData):
        rows.append(judge.judge_loading(_loading(recipe, max(ranks, read_launch(os.environ).world_size))))
    software, devices = facts.find_software(), facts.find_devices()
    folder = run_dir or Path("runs")
    if recipe and not run_dir:
        folder = Path(recipe.sections["training"].output_dir or folder)
    is_complete = all(row.state != "failure" for row in rows) and size is not None
    rows += judge.judge_software(software, need, has_cuda=bool(devices.gpus))
    rows += judge.judge_devices(devices, torch.__version__, need)
    rows += judge.judge_machine(find_machine(), os.environ, need, torch_threads=torch.get_num_threads())
    rows += judge.judge_disk(facts.find_disk(folder), need)
    rows += judge.judge_limits(facts.find_limits(), need, num_gpus=len(devices.gpus))
    rows += judge.judge_network(facts.find_network(port))
    return rows + judge.judge_hub(facts.find_hub(hub_id)), is_complete


def _hub_id(recipe: Recipe) -> str:
    """What the recipe's model begins with, where that is no folder."""
    pretrained = recipe.sections["model"].pretrained
    return "" if pretrained is None or Path(pretrained).expanduser().exists() else pretrained


def _look_at(recipe: Recipe, path: str, overrides: Sequence[str], hub_id: str) -> tuple[list[str], int | None]:
    """What a recipe names and is not there, and the size of its model; None where that would have to be fetched."""
    problems: list[str] = []
    try:
        load(path, overrides)
    except RecipeError as error:
        problems = error.problems
    if hub_id:
        return problems, None
    try:
        if not data_of(recipe).is_there() and not problems:
            problems.append("the data are not there")
        return problems, sum(p.numel() for p in shapes_of(recipe).parameters())
    except ValueError as error:
        return [*problems, str(error)], None


def _loading(recipe: Recipe, world_size: int) -> facts.Loading:
    """Of windows of series; text is cut from one token file, which costs next to nothing."""
    data, training = data_of(recipe), recipe.sections["training"]
    seconds = None
    if torch.cuda.is_available() and training.device in ("auto", "cuda"):
        peak = peak_flops(torch.cuda.get_device_name())
        flops = registry.get(recipe.sections["model"].family).flops_per_row(shapes_of(recipe), data)
        seconds = peak and flops * training.batch_size / world_size / (peak * _USUAL_MFU)
    dataset = data.open(training.seed, batch_size=training.batch_size)
    return facts.find_loading(dataset, training.batch_size, world_size, seconds)


def _need(recipe: Recipe | None, ranks: int, size: int | None) -> judge.Need:
    if recipe is None:
        return judge.Need(ranks_here=ranks)
    sections: Any = recipe.sections
    training = sections["training"]
    return judge.Need(
        ranks_here=ranks,
        device=training.device,
        wants_flash_attn=getattr(sections["model"], "attn_implementation", "") == "flash_attention_2",
        num_parameters=size,
        num_kept=training.save_total_limit + sections["checkpoint"].keep_best,
        num_prefetch=sections["data"].num_prefetch,
        force_conservative_cpu=training.force_conservative_cpu,
    )
