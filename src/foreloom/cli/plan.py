"""`foreloom plan`: what a recipe would take of many GPUs, counted and estimated before any of it is spent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import FILE, JsonOption, OverridesArgument, RecipeArgument, check_places

OF_CLUSTERS = ("gpus", "gpu", "per_machine", "mfu", "memory", "peak", "bandwidth", "link", "network")
OF_COSTS = ("price", "watts")


def plan(
    context: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that train together.")] = 1,
    gpu: Annotated[str, typer.Option(help="Which: a100-80gb, h100-sxm; a name that is not known lists them.")] = "",
    per_machine: Annotated[int, typer.Option(min=1, help="GPUs of a machine.")] = 8,
    mfu: Annotated[float, typer.Option(min=0.001, max=1, help="Share of its peak that a GPU reaches.")] = 0.3,
    price: Annotated[float | None, typer.Option(min=0, help="Of a GPU and hour, in your currency.")] = None,
    memory: Annotated[str | None, typer.Option(help="Of one GPU (80GB), instead of its data sheet's.")] = None,
    peak: Annotated[
        float | None, typer.Option(min=1, help="FLOPs a second of one GPU (312e12), in the precision of the run.")
    ] = None,
    bandwidth: Annotated[float | None, typer.Option(min=1, help="Bytes a second to its memory (2e12).")] = None,
    link: Annotated[float | None, typer.Option(min=1, help="Bytes a second to the GPUs beside it (300e9).")] = None,
    network: Annotated[float | None, typer.Option(min=1, help="Bytes a second out of a machine (200e9).")] = None,
    watts: Annotated[float | None, typer.Option(min=1, help="Of one GPU that works.")] = None,
    simulate: Annotated[
        int | None, typer.Option(min=2, help="Instead: one step as one of so many ranks, and what it really sends.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="Instead: efficiency from so many GPUs to so many: 1..1024.")
    ] = None,
    step_seconds: Annotated[
        float | None, typer.Option(min=1e-6, help="With --scale: forward and backward, as measured on --gpus.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --scale: draw it, .svg, .png or .pdf.", **FILE)] = None,
    as_json: JsonOption = False,
) -> None:
    """Memory by term, the largest micro-batch that fits, bytes moved, time, energy and cost under DDP, FSDP2 and HSDP,
    with activations kept or computed again. Needs neither a GPU nor, for new models, the data. Exits with 1 where
    nothing fits."""
    if scale is None and (step_seconds is not None or out is not None):
        raise typer.BadParameter("--step-seconds and --out go with --scale.")
    if scale is not None and simulate is not None:
        raise typer.BadParameter("--scale and --simulate are two questions; ask them one at a time.")
    if simulate is not None:
        _refuse_without_effect(context, [*OF_CLUSTERS, *OF_COSTS], "--simulate")
    if scale is not None:
        _refuse_without_effect(context, OF_COSTS, "--scale")
    check_places([recipe], picture=out)
    from foreloom.config.shipped import find_recipe

    path = find_recipe(recipe)
    from foreloom import run
    from foreloom.plan.cluster import find_cluster
    from foreloom.plan.table import print_plan, print_scaling, print_simulation
    from foreloom.plan.ways import plan as plan_ways
    from foreloom.report.style import save_figure

    read = run.load(path, overrides or [], need_data=False)
    if simulate is not None:
        from foreloom.plan.simulate import simulate as simulate_step

        simulation = simulate_step(read, simulate)
        if as_json:
            typer.echo(json.dumps(simulation.to_json(), indent=2))
        else:
            print_simulation(simulation, path.stem)
        return
    cluster, precision = find_cluster(
        read.sections["training"].precision,
        gpu=gpu,
        num_gpus=gpus,
        per_machine=per_machine,
        mfu=mfu,
        price=price,
        memory=memory,
        peak=peak,
        bandwidth=bandwidth,
        link=link,
        network=network,
        watts=watts,
    )
    if scale is not None:
        from foreloom.plan.scale import parse_range, scaling_figure
        from foreloom.plan.scale import scale as scale_up

        scaling = scale_up(read, cluster, precision, parse_range(scale), step_seconds)
        if out is not None:
            save_figure(scaling_figure(scaling), out)
        if as_json:
            typer.echo(json.dumps(scaling.to_json(), indent=2))
        else:
            print_scaling(scaling, path.stem, cluster.accelerator.name)
        return
    found = plan_ways(read, cluster, precision)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_plan(found, path.stem)
    if not found.fits:
        raise typer.Exit(1)


def _refuse_without_effect(context: typer.Context, options: Sequence[str], beside: str) -> None:
    typed = [name for name in options if (said := context.get_parameter_source(name)) and said.name != "DEFAULT"]
    if typed:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in typed)
        raise typer.BadParameter(f"{flags}: without effect beside {beside}. Leave it out.")
