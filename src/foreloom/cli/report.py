"""`foreloom report`: pages and tables of what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from foreloom.cli.arguments import (
    FILE,
    DeviceOption,
    FormatOption,
    ModelArgument,
    OutOption,
    OverridesArgument,
    check_places,
    or_example,
    with_table_options,
)
from foreloom.data.tables.options import TableOptions

RESULTS_HELP = "CSV of scores that `foreloom evaluate` wrote."


class _ReportGroup(typer.core.TyperGroup):
    """`foreloom report RUN` is `foreloom report page RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["page", *args]
        return super().parse_args(ctx, args)


report_app = typer.Typer(cls=_ReportGroup, help="Pages and tables of what was found.", no_args_is_help=True)


@report_app.command(epilog="Example: foreloom report runs/quickstart")
def page(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write report.html: one page about a run, with nothing outside it (`foreloom report RUN` is enough)."""
    from foreloom.report.page import write_page

    typer.echo(f"wrote {write_page(run)}")


@report_app.command(epilog="Example: foreloom report leaderboard chronos-zero-shot --results scores.csv")
def leaderboard(
    suite: Annotated[str, typer.Argument(help="A suite with a published board (chronos-zero-shot, gift-eval ...).")],
    results: Annotated[list[Path] | None, typer.Option(help=f"{RESULTS_HELP} Give it again for more.")] = None,
    metric: Annotated[str | None, typer.Option(help="The metric that ranks (default: the suite's first).")] = None,
    form: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Show your models among the published ones of a suite."""
    from foreloom.report.leaderboard import leaderboard
    from foreloom.report.tables import print_or_write

    print_or_write(leaderboard(suite, results or [], metric=metric), form, out, results or [])


@report_app.command(epilog="Example: foreloom report compare a-scores.csv b-scores.csv --format latex")
def compare(
    results: Annotated[list[Path], typer.Argument(help=RESULTS_HELP)],
    baseline: Annotated[str, typer.Option(help="The model the others are divided by.")] = "seasonal-naive",
    metric: Annotated[str, typer.Option(help="The metric to compare by.")] = "WQL",
    form: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Put the models of several score files side by side, task by task, with wins and their intervals."""
    from foreloom.report.compare import compare
    from foreloom.report.tables import print_or_write

    print_or_write(compare(results, baseline=baseline, metric=metric), form, out, results)


@report_app.command(
    epilog="Example: foreloom report experts Maple728/TimeMoE-50M examples/data/m3_monthly.parquet --plot experts.png"
)
@with_table_options
def experts(
    model: ModelArgument,
    data: Annotated[Path, typer.Argument(help="A data set, of any layout.", callback=or_example)],
    kind: Annotated[
        str | None,
        typer.Option(help="The static column that names a series' kind (default: kind, else patterns of the values)."),
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option(
            "--context-length", "-c", min=1, help="Newest steps of each series (default: as the model, 2,048 at most)."
        ),
    ] = None,
    max_series: Annotated[int, typer.Option(min=1, help="The most series looked at, by a fixed choice.")] = 1000,
    layer: Annotated[
        int | None, typer.Option(min=1, help="Of a model with experts in its layers (default: the last).")
    ] = None,
    form: FormatOption = None,
    out: OutOption = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the shares as a heatmap: .png, .svg or .pdf.", **FILE)] = None,
    device: DeviceOption = "auto",
    *,
    table: TableOptions,
) -> None:
    """Show which kinds of series a model sends to which of its experts, and whether that is more than chance."""
    from foreloom.report.experts import expert_figure, expert_table, route_model
    from foreloom.report.style import save_figure
    from foreloom.report.tables import print_or_write

    check_places([data], picture=plot, files={"--out": out})
    found = route_model(
        model,
        str(data),
        kind=kind,
        context_length=context_length,
        max_series=max_series,
        layer=layer,
        device=device,
        table=table,
    )
    print_or_write(expert_table(found), form, out, [data])
    if plot is not None:
        typer.echo(f"wrote {save_figure(expert_figure(found), plot)}")


@report_app.command(epilog="Example: foreloom report parameters chronos2-base")
def parameters(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL-OR-RECIPE",
            help="A recipe file, the name of a shipped one, a run folder, a checkpoint, a model folder or a hub id.",
        ),
    ],
    overrides: OverridesArgument = None,
    form: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Count a model's parameters, in total and active, and what they cost; of a recipe without building the model."""
    from foreloom.report.parameters import parameters
    from foreloom.report.tables import print_or_write

    print_or_write(parameters(model, overrides or []), form, out)
