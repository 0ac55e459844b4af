"""`foreloom lab list | gen | run | status | lint`: studies, from a few lines to the CSVs of their runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreloom.cli.arguments import FormatOption, OutOption, check_places, split_names
from foreloom.cli.lab import lab_app

if TYPE_CHECKING:
    from foreloom.lab.study.study import Study

STUDY_HELP = "A study file (YAML), file.py:NAME, or a preset (`foreloom lab list`)."
StudyArgument = Annotated[str, typer.Argument(help=STUDY_HELP)]
CommonArgument = Annotated[
    list[str] | None, typer.Argument(help="Overrides of every run: recipe=chronos2-test steps=100 seed=3")
]
ResultsOption = Annotated[Path, typer.Option(help="The folder above those of studies.")]


@lab_app.command("list", epilog="Example: foreloom lab list")
def list_studies() -> None:
    """Show the studies that come with foreloom."""
    from foreloom.lab.study.presets import PRESETS

    for name, preset in PRESETS.items():
        typer.echo(f"{name:16} {preset.sentence}")


@lab_app.command(epilog="Example: foreloom lab gen scaling")
def gen(
    study: Annotated[str | None, typer.Argument(help=STUDY_HELP)] = None,
    common: CommonArgument = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--table", "--width", help="Widths, instead of a study: 32,48,64. What follows from each is shown."
        ),
    ] = None,
    match_params: Annotated[
        str | None,
        typer.Option(help="Instead of a width, a number of parameters, 3.5e6, or the recipe whose model has as many."),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="Of --table and --match-params: transformer (default), lstm, or any recipe."),
    ] = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Write the study out as a file, run by run.")] = False,
    form: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Show the runs of a study, each with its size and length, without training anything."""
    from foreloom.files import write_text
    from foreloom.lab.study.experiments import LSTM, TRANSFORMER
    from foreloom.lab.study.table import table_of
    from foreloom.report.tables import print_or_write

    if table is not None and match_params is not None:
        raise ValueError("--table and --match-params both say how wide: give one.")
    if arch is not None and table is None and match_params is None:
        raise ValueError("--arch goes with --table or --match-params; of a study say recipe=NAME.")
    if table is not None or match_params is not None:
        arch = arch or "transformer"
        asked = overrides_of([*([study] if study else []), *(common or [])])
        asked = {"recipe": {"transformer": TRANSFORMER, "lstm": LSTM}.get(arch, arch), **asked}
        found = _of_widths(table, asked) if table is not None else _of_a_size(str(match_params), arch, asked)
    elif study is None:
        raise ValueError("name a study, or widths: foreloom lab gen --table 32,48,64.")
    else:
        found = _study(study, common)
    if as_yaml and form is not None:
        raise ValueError("--yaml and --format are two ways to write a study: give one.")
    if as_yaml and out is not None:
        check_places([], files={"--out": out})
        write_text(out, found.to_yaml())
        typer.echo(f"wrote {out}")
        return
    if as_yaml:
        typer.echo(found.to_yaml(), nl=False)
        return
    print_or_write(table_of(found.resolve(), found.name), form, out)


@lab_app.command("run", epilog="Example: foreloom lab run scaling steps=20")
def run_study(
    study: StudyArgument,
    common: CommonArgument = None,
    results: ResultsOption = Path("results"),
    only: Annotated[list[str] | None, typer.Option(help="The run of this label. Give it again for more.")] = None,
    index: Annotated[int | None, typer.Option(help="Which part, from 0, of those that --of tells.")] = None,
    of: Annotated[int | None, typer.Option(min=1, help="Parts the runs are shared out to.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs, and train nothing.")] = False,
) -> None:
    """Train a study's runs, each to results/STUDY/LABEL.csv. Finished runs are skipped; exits with 1 if one fails."""
    from foreloom.lab.study.execution import execute, part_of
    from foreloom.lab.study.table import table_of
    from foreloom.report.tables import print_or_write
    from foreloom.training.signals import StopRequest

    if (index is None) != (of is None):
        raise ValueError("--index and --of go together: --index 0 --of 4 is the first of four parts.")
    found = _study(study, common)
    planned = found.resolve()
    if only:
        known = [one.label for one in planned]
        if missing := [label for label in only if label not in known]:
            raise ValueError(f"--only {missing[0]}: no run has this label; there are {', '.join(known)}.")
        planned = [one for one in planned if one.label in only]
    if index is not None and of is not None:
        planned = part_of(planned, index, of)
    if dry_run:
        print_or_write(table_of(planned, found.name), None, None)
        return
    with StopRequest() as stop:
        raise typer.Exit(execute(planned, results, stop, waits=index is not None))


@lab_app.command(epilog="Example: foreloom lab status scaling")
def status(
    study: StudyArgument,
    common: CommonArgument = None,
    results: ResultsOption = Path("results"),
    form: FormatOption = None,
) -> None:
    """Show how far each run of a study has come, who trains it, and what failed ones said last."""
    from foreloom.lab.study.execution import status_of
    from foreloom.lab.study.table import table_of_status
    from foreloom.report.tables import print_or_write

    found = _study(study, common)
    print_or_write(table_of_status(status_of(found.resolve(), results), found.name), form, None)


@lab_app.command(epilog="Example: foreloom lab lint scaling")
def lint(study: StudyArgument, common: CommonArgument = None) -> None:
    """Tell what of a study will be regretted: silent labels, mixed data, one D / N. Exits with 1 if there is any."""
    from foreloom.lab.study.lint import lint

    planned = _study(study, common).resolve()
    found = lint(planned)
    for sentence in found or [f"{study}: nothing found that will be regretted, in {len(planned):,} runs."]:
        typer.echo(sentence)
    raise typer.Exit(1 if found else 0)


def _study(text: str, common: list[str] | None) -> Study:
    from foreloom.lab.study.study import find_study

    return find_study(text, overrides_of(common))


def overrides_of(texts: list[str] | None) -> dict[str, Any]:
    """name=value with the value in YAML."""
    import yaml

    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: write an override as name=value.")
        found[name.strip()] = yaml.safe_load(value)
    return found


def _of_a_size(number: str, arch: str, common: dict[str, Any]) -> Study:
    from foreloom.lab.study.study import Study

    return Study.of("matched", [{"name": "", "subexperiments": [
        {"label": f"{arch}_{number}", "overrides": {**common, "match_params": number}}
    ]}])  # fmt: skip


def _of_widths(text: str, common: dict[str, Any]) -> Study:
    from foreloom.lab.study.experiments import gen_experim
    from foreloom.lab.study.study import Study

    widths = split_names(text)
    if not widths or not all(width.isdecimal() for width in widths):
        raise ValueError(f"--table {text!r}: expected widths, as in 32,48,64.")
    experiments = [one for width in widths for one in gen_experim(int(width), **common)]
    return Study.of("widths", experiments)
