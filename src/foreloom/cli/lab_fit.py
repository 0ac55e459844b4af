"""`foreloom lab fit | lr-fit | frontiers | report`: laws of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import FILE, FormatOption, JsonOption, split_names
from foreloom.cli.lab import lab_app

StudyArgument = Annotated[Path, typer.Argument(help="A study's folder of CSVs, or a CSV of N, D (or C) and L.")]
BootstrapOption = Annotated[int, typer.Option(min=0, help="Sets of runs drawn for the intervals; 0: none.")]


def _columns(text: str | None) -> dict[str, str]:
    """`N=params,L=loss` as a mapping."""
    pairs = [part.partition("=") for part in split_names(text or "")]
    if wrong := [name for name, _, column in pairs if name not in ("N", "D", "C", "L", "run") or not column]:
        raise ValueError(f"--columns {wrong[0]!r}: expected N, D, C, L or run, each with =COLUMN behind it.")
    return {name: column for name, _, column in pairs}


def _need_scipy() -> None:
    import importlib.util

    if not importlib.util.find_spec("scipy"):
        raise ValueError(
            "the fits are made with the package scipy, which is not installed: pip install 'foreloom[lab]'."
        )


@lab_app.command(epilog="Example: foreloom lab fit results/scaling --hold-out largest")
def fit(
    path: StudyArgument,
    hold_out: Annotated[
        str, typer.Option(help="largest, or labels of runs: leave them out, predict them, show the error made.")
    ] = "",
    loss: Annotated[str, typer.Option(help="huber, or lad for absolute deviations (approach 3).")] = "huber",
    delta: Annotated[float, typer.Option(min=1e-9, help="Of Huber's loss, in nats of log loss.")] = 1e-3,
    drop_worst: Annotated[int, typer.Option(min=0, help="Leave out so many points of the highest loss.")] = 0,
    assume_e: Annotated[
        float | None, typer.Option(min=0, help="The loss that remains, in nats, instead of finding it.")
    ] = None,
    window: Annotated[
        float | None, typer.Option(min=1, help="Approach 2: only N within so many times of a budget's best.")
    ] = None,
    outliers: Annotated[
        bool, typer.Option("--outliers/--no-outliers", help="Approach 2: give outliers no weight (default), or full.")
    ] = True,
    bootstrap: BootstrapOption = 400,
    non_embedding: Annotated[bool, typer.Option("--non-embedding", help="Count N without embeddings.")] = False,
    columns: Annotated[str | None, typer.Option(help="What a CSV calls them: N=params,D=tokens,L=loss.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit scaling laws to finished runs, with intervals, and say what the runs cannot tell."""
    _need_scipy()
    from foreloom.lab.fit.analysis import Options, analyse
    from foreloom.lab.fit.tables import print_findings

    if loss not in ("huber", "lad"):
        raise ValueError(f"--loss {loss!r}: expected huber or lad.")
    options = Options(
        loss="lad" if loss == "lad" else "huber",
        delta=delta,
        drop_worst=drop_worst,
        num_bootstrap=bootstrap,
        window=window or float("inf"),
        robust=outliers,
        hold_out=hold_out,
        non_embedding=non_embedding,
        E=assume_e,
    )
    print_findings(analyse(path, _columns(columns), options), as_json=as_json)


@lab_app.command("lr-fit", epilog="Example: foreloom lab lr-fit results/optimal_lr_lr_sweep")
def lr_fit(
    path: Annotated[Path, typer.Argument(help="The folder of a sweep: runs that differ in learning rate.")],
    of: Annotated[str, typer.Option(help="What was swept: learning_rate or batch_size.")] = "learning_rate",
    out: Annotated[
        Path | None, typer.Option(help="Where the law is written (default: fit.json in the folder).", **FILE)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best learning rate of each size and its law over sizes; write both for `learning_rate=from:fit.json`."""
    _need_scipy()
    import json
    from dataclasses import asdict

    from foreloom.files import strict_json
    from foreloom.lab.fit.learning_rate import fit_rates, write_rates
    from foreloom.lab.fit.runs import read_study
    from foreloom.lab.fit.tables import rates_table
    from foreloom.report.tables import print_or_write

    if of not in ("learning_rate", "batch_size"):
        raise ValueError(f"--of {of!r}: expected learning_rate or batch_size.")
    found = fit_rates(read_study(path), "batch_size" if of == "batch_size" else "learning_rate")
    out = out or path / "fit.json"
    write_rates(found, out)
    if as_json:
        print(json.dumps(strict_json(asdict(found)), indent=1))
        return
    print_or_write(rates_table(found), None, None)
    for doubt in found.doubts:
        typer.echo(f"! {doubt}.")
    typer.echo(f"wrote {out}")


@lab_app.command(epilog="Example: foreloom lab frontiers results/lstm results/transformer --window 1e14:5e17")
def frontiers(
    paths: Annotated[list[Path], typer.Argument(help="Folders of studies; the first is the base of the gain.")],
    window: Annotated[str | None, typer.Option(help="FLOPs to look at: LOWEST:HIGHEST.")] = None,
    compute: Annotated[str, typer.Option(help="6nd, or counted: the FLOPs that the CSVs count.")] = "6nd",
    assume_e: Annotated[float | None, typer.Option(min=0, help="E of the gain, in nats (default: 0).")] = None,
    form: FormatOption = None,
) -> None:
    """Compare how the best loss of studies falls with compute: exponents by E and window, compute-equivalent gain."""
    _need_scipy()
    from foreloom.lab.fit.comparison import courses_of, exponents, gain_of
    from foreloom.lab.fit.tables import exponents_table, gain_table
    from foreloom.report.tables import print_or_write

    if compute not in ("6nd", "counted"):
        raise ValueError(f"--compute {compute!r}: expected 6nd or counted.")
    of = courses_of(paths, compute="counted" if compute == "counted" else "6nd", window=_window(window))
    print_or_write(exponents_table([row for one in of for row in exponents(one)]), form, None)
    for other in of[1:]:
        if (gain := gain_of(of[0], other, E=assume_e or 0.0)) is None:
            typer.echo(f"! {of[0].name} and {other.name} have no loss in common: no gain can be told.")
        else:
            print_or_write(gain_table(of[0].name, other.name, gain), form, None)


@lab_app.command(epilog="Example: foreloom lab report results/scaling")
def report(
    paths: Annotated[list[Path], typer.Argument(help="A study's folder; more of them to compare, or CSVs.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of report.html and figures/ (default: that of the first study).")
    ] = None,
    bootstrap: BootstrapOption = 200,
    drop_worst: Annotated[int, typer.Option(min=0, help="Leave out so many points of the highest loss.")] = 0,
    base: Annotated[str | None, typer.Option(help="The variant that others are compared with.")] = None,
    assume_e: Annotated[float | None, typer.Option(min=0, help="E of multipliers and gains, in nats.")] = None,
    gamma: Annotated[float | None, typer.Option(min=0, help="Of multipliers: L - E falls as C^-gamma.")] = None,
) -> None:
    """Write a study's page and its figures as SVG and PNG."""
    _need_scipy()
    from foreloom.lab.fit.analysis import Options
    from foreloom.lab.fit.page import Assumed, write_report

    options = Options(num_bootstrap=bootstrap, drop_worst=drop_worst)
    page = write_report(paths, out, options, Assumed(base, assume_e, gamma))
    typer.echo(f"wrote {page} and {page.parent / 'figures'}")


def _window(text: str | None) -> tuple[float, float]:
    try:
        low, high = map(float, (text or "0:inf").split(":"))
    except ValueError:
        raise ValueError(f"--window {text!r}: expected LOWEST:HIGHEST in FLOPs, as in 1e14:5e17.") from None
    return low, high
