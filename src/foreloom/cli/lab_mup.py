"""`foreloom lab mup`: rules of parameters, the coordinate check, and learning-rate transfer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import FILE, FormatOption, OutOption, OverridesArgument, RecipeArgument, check_places
from foreloom.cli.lab import lab_app

mup_app = typer.Typer(help="Do settings of a small model hold for a large one?", no_args_is_help=True)
lab_app.add_typer(mup_app, name="mup")

WidthsOption = Annotated[
    str, typer.Option(help="Widths to compare, by commas (default: the base width times 1, 2, 4 and 8).")
]
KindsOption = Annotated[
    str, typer.Option(help="Parametrizations, by commas: standard, mup, legacy-sqrt, legacy-geomean.")
]
PlotOption = Annotated[Path | None, typer.Option(help="Draw it: .png, .svg or .pdf.", **FILE)]


@mup_app.command(
    "table",
    epilog="Example: foreloom lab mup table decoder-tiny parametrization.kind=mup parametrization.base_width=64",
)
def table(
    recipe: RecipeArgument, overrides: OverridesArgument = None, form: FormatOption = None, out: OutOption = None
) -> None:
    """Every parameter's kind, shape, initial standard deviation and multipliers under the recipe's parametrization."""
    from foreloom.config.shipped import find_recipe

    path = find_recipe(recipe)  # a wrong name is told before torch is imported
    from foreloom.lab.mup.tables import rules_table
    from foreloom.report.tables import print_or_write
    from foreloom.run import load

    print_or_write(rules_table(load(path, overrides or [])), form, out)


@mup_app.command(
    "coord-check", epilog="Example: foreloom lab mup coord-check decoder-tiny training.batch_size=8 --plot check.png"
)
def coord_check(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    widths: WidthsOption = "",
    depths: Annotated[str, typer.Option(help="Depths to compare instead, by commas: 2,4,8,16.")] = "",
    kinds: KindsOption = "mup,standard",
    seeds: Annotated[int, typer.Option(min=1, help="Models of each size.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Updates, all on one batch.")] = 5,
    every: Annotated[bool, typer.Option("--every", help="Every module's slopes at every step.")] = False,
    form: FormatOption = None,
    out: OutOption = None,
    plot: PlotOption = None,
) -> None:
    """Train models of several sizes for a few steps and see whether what is inside them keeps its size.

    Exits with 1 where the first of --kinds fails.
    """
    from foreloom.config.shipped import find_recipe

    path = find_recipe(recipe)
    from foreloom.lab.mup.coordinates import check
    from foreloom.lab.mup.figures import check_figure
    from foreloom.lab.mup.tables import check_table, summary_table
    from foreloom.lab.mup.trial import parse_kinds, parse_numbers, standing
    from foreloom.lab.runs import say
    from foreloom.report.style import save_figure
    from foreloom.report.tables import print_or_write

    check_places([path], picture=plot, files={"--out": out})
    if widths and depths:
        raise ValueError("give --widths or --depths, not both: each is a check of its own.")
    named, given = parse_kinds(kinds), parse_numbers(depths, "--depths") if depths else None
    with standing(path, overrides or [], parse_numbers(widths, "--widths") if widths else None) as (bench, sizes):
        axis = "depth" if given else "width"
        checks = [
            check(bench, kind, axis, given or sizes, num_seeds=seeds, num_steps=steps, tell=say) for kind in named
        ]
    print_or_write(check_table(checks) if every or form or out else summary_table(checks), form, out)
    if plot is not None:
        typer.echo(f"wrote {save_figure(check_figure(checks), plot)}")
    raise typer.Exit(0 if checks[0].passes else 1)


@mup_app.command(
    "transfer", epilog="Example: foreloom lab mup transfer decoder-tiny training.steps=60 --widths 32,64,128"
)
def transfer(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    widths: WidthsOption = "",
    rates: Annotated[
        str, typer.Option(help="log2 of the learning rates, from:to or from:to:step (default: 4 octaves each way).")
    ] = "",
    kinds: KindsOption = "standard,mup",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each.")] = 1,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of the losses (default: runs/mup-RECIPE); what is there stays.")
    ] = None,
    form: FormatOption = None,
    plot: PlotOption = None,
) -> None:
    """Train at each width and learning rate, and tell by how many octaves the best rate moves."""
    from foreloom.config.shipped import find_recipe

    path = find_recipe(recipe)
    from foreloom.lab.mup.figures import basin_figure
    from foreloom.lab.mup.tables import transfer_table
    from foreloom.lab.mup.transfer import sweep
    from foreloom.lab.mup.trial import parse_kinds, parse_numbers, parse_rates, standing
    from foreloom.lab.runs import say
    from foreloom.report.style import save_figure
    from foreloom.report.tables import print_or_write

    check_places([path], picture=plot)
    named, folder = parse_kinds(kinds), to or Path("runs") / f"mup-{path.stem}"
    with standing(path, overrides or [], parse_numbers(widths, "--widths") if widths else None) as (bench, sizes):
        found = sweep(
            bench,
            named,
            sizes,
            parse_rates(rates, bench.optimizer.learning_rate),
            num_seeds=seeds,
            out=folder,
            tell=say,
        )
    print_or_write(transfer_table(found), form, None)
    if plot is not None:
        typer.echo(f"wrote {save_figure(basin_figure(found), plot)}")
