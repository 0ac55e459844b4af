"""Arguments and options that several verbs share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core


def command_with_hints(flags: Mapping[str, str]) -> type[typer.core.TyperCommand]:
    """A verb that meets flags of other programs with what says the same here."""

    class Command(typer.core.TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            for flag in (arg.partition("=")[0] for arg in args):
                if flag in flags:
                    ctx.fail(f"No such option: {flag}. Here it is {flags[flag]}")
            return super().parse_args(ctx, args)

    return Command


def split_names(text: str) -> list[str]:
    """Comma separated names."""
    return [name for part in text.split(",") if (name := part.strip())]


def _known_form(text: str | None) -> str | None:
    """Refused before anything is computed."""
    from foreloom.report.tables import parse_form

    return parse_form(text)


def or_example(path: Path | None) -> Path | None:
    """`examples/births.csv` is found from anywhere."""
    from foreloom.config.shipped import find_example

    return None if path is None else find_example(path)


RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (chronos2-test).")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Settings on top: training.steps=100 optimizer.learning_rate=1e-4")
]
ModelArgument = Annotated[str, typer.Argument(help="A run folder, a checkpoint, a model folder or a hub id.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
IdColumnOption = Annotated[str, typer.Option(help="The column that names the series, or several: store,item.")]
TimestampColumnOption = Annotated[str, typer.Option(help="The column of times.")]
TargetOption = Annotated[str, typer.Option(help="Target column(s), comma separated.")]
DateFormatOption = Annotated[
    str | None, typer.Option(help="How times are written, where two readings fit: %d/%m/%Y or %m/%d/%Y.")
]
SeparatorOption = Annotated[str | None, typer.Option(help="Between the columns of a text file (default: a comma).")]
DecimalOption = Annotated[str | None, typer.Option(help="The decimal point of a text file (default: a point).")]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        callback=_known_form,
        help="markdown, latex, csv, html or json (default: a table to look at, or by --out's ending).",
    ),
]
"""Of a score table, with `OutOption`: what `report.tables.print_or_write` takes."""
OutOption = Annotated[
    Path | None, typer.Option(help="The file to write (.md, .tex, .csv, .html, .json) instead of printing.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, and nothing else.")]
