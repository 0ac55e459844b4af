"""Arguments and options that several verbs share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
import typer.core

from foreloom.data.tables.options import TableOptions, table_options


def command_with_hints(hint: Callable[[str], str | None]) -> type[typer.core.TyperCommand]:
    """A verb that meets flags of other programs with what says the same here, which `hint` knows."""

    class Command(typer.core.TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            own = {name for one in self.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
            for flag in (arg.partition("=")[0] for arg in args if arg.startswith("-")):
                if flag not in own and (here := hint(flag)):
                    ctx.fail(f"No such option: {flag}. Here: {here}")
            return super().parse_args(ctx, args)

    return Command


_FORECASTERS = {
    "--horizon N": "prediction-length h fh forecast-horizon",
    "--quantiles 0.1,0.9": "level levels quantile-levels",
    "--windows N": "n-windows num-windows num-val-windows",
    "--step N": "step-size val-step-size",
    "--season N": "season-length seasonality",
    "--minutes X": "time-limit",
    "--future FILE": "future-df x-df futr-df known-covariates future-covariates",
    "--known-ahead NAME,...": "known-covariates-names futr-exog-list",
    "--past NAME,...": "past-covariates-names hist-exog-list",
    "--static NAME,..., of columns of the table itself": "static-features static-df stat-exog-list",
    "--id-column NAME": "id-col item-id",
    "--timestamp-column NAME": "time-col date-column",
    "--target NAME": "target-col target-column",
    "--out FILE": "output output-path output-dir",
    "an argument: foreloom VERB MODEL DATA ...": "model model-id model-path data df input data-path train-data",
    "--device cuda": "device-map",
    "--max-new-tokens N": "max-length max-tokens",
    "--temperature X, 0 for the likeliest": "do-sample",
}
"""What the verbs that forecast call it -> what other libraries do, words apart."""
_BY_FLAG = {flag: here for here, flags in _FORECASTERS.items() for flag in flags.split()}


def flag_of_forecasters(flag: str) -> str | None:
    """What says here what an option of another forecasting library says; None for any other flag."""
    return _BY_FLAG.get(flag[2:].replace("_", "-").lower()) if flag.startswith("--") else None


def split_names(text: str) -> list[str]:
    """Comma separated names."""
    return [name for part in text.split(",") if (name := part.strip())]


def _known_form(text: str | None) -> str | None:
    """Refused before anything is computed."""
    from foreloom.report.tables import parse_form

    return parse_form(text)


def file_to_write(text: str | Path) -> Path:
    """A file as typed. `Path` forgets the stroke that makes it a folder."""
    if str(text).endswith(("/", os.sep)):
        raise typer.BadParameter(f"{text} ends in a stroke, as folders do. Name a file.")
    return Path(text)


FILE: Mapping[str, Any] = {"parser": file_to_write, "metavar": "FILE"}
"""Of an option that names a file to write."""


def check_places(
    read: Sequence[str | Path], *, picture: Path | None = None, files: Mapping[str, Path | None] = MappingProxyType({})
) -> None:
    """Try where files and a picture are to be written, by option, before the work."""
    from foreloom.files import check_writable
    from foreloom.report.style import check_picture_name

    if picture is not None:
        check_picture_name(picture)
    for option, path in {**files, "--plot": picture}.items():
        if path is not None:
            check_writable(path, option, read)


def or_example(path: Path | None) -> Path | None:
    """`examples/births.csv` is found from anywhere."""
    from foreloom.config.shipped import find_example

    return None if path is None else find_example(path)


def with_table_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb an option for each setting of `TableOptions`, `--id-column` for id_column; it gets the record they
    make as its argument `table`."""
    own = inspect.signature(verb, eval_str=True)
    options = [_table_option(field.name) for field in fields(TableOptions)]

    def run(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        typed = bound.arguments
        said = {option.name: typed.pop(option.name) for option in options}
        verb(**typed, table=table_options(said))

    parameters = [*(one for name, one in own.parameters.items() if name != "table"), *options]
    signature = run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__name__, run.__doc__ = verb.__name__, verb.__doc__
    return run


def _table_option(name: str) -> inspect.Parameter:
    described = " ".join((TableOptions.__pydantic_fields__[name].description or "").split())  # type: ignore[attr-defined]
    is_switch = TableOptions.__annotations__[name] == "bool | None"
    flag = f"--{name.replace('_', '-')}"
    flags = f"{flag}/--no-{flag[2:]}" if is_switch else flag
    option = typer.Option(flags, help=described, rich_help_panel="What a table does not say itself")
    annotation = Annotated[bool | None if is_switch else str | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (chronos2-test).")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(help="Settings on top: training.steps=100 optimizer.learning_rate=1e-4")
]
ModelArgument = Annotated[
    str, typer.Argument(help="small (comes with foreloom), a run folder, a checkpoint, a model folder or a hub id.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
LookbacksOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Forecast the mean over so many pasts, each 0.7 times the one before (default: the model's)."
    ),
]
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
    Path | None, typer.Option(help="The file to write (.md, .tex, .csv, .html, .json) instead of printing.", **FILE)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON, and nothing else.")]
