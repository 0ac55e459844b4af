"""`foreloom lab submit | pull`: studies on a cluster, and their results back from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from foreloom.cli.lab import lab_app
from foreloom.cli.lab_study import CommonArgument, ResultsOption, StudyArgument, overrides_of


class _CountedCommand(typer.core.TyperCommand):
    """`-50` is `--tasks 50`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelled = [["--tasks", arg[1:]] if re.fullmatch(r"-\d+", arg) else [arg] for arg in args]
        return super().parse_args(ctx, [part for parts in spelled for part in parts])


@lab_app.command(cls=_CountedCommand, epilog="Example: foreloom lab submit scaling --dry-run -5")
def submit(
    study: StudyArgument,
    common: CommonArgument = None,
    tasks: Annotated[
        int | None, typer.Option("--tasks", "-n", min=1, help="Tasks of the array (default: one a run). -50 is short.")
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option("--at-once", "-c", min=1, help="Tasks at a time (default: by gpus_at_once of the profile, 8)."),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="YAML of the cluster, as of `foreloom launch`: slurm, studies, environment.")
    ] = None,
    results: ResultsOption = Path("results"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print both scripts, and submit nothing.")] = False,
) -> None:
    """Submit a study to SLURM: an array job that shares its runs out, and the analysis behind it."""
    from foreloom.lab import slurm
    from foreloom.lab.study.study import find_study
    from foreloom.launch.profile import read_profile

    planned = find_study(study, overrides_of(common)).resolve()
    jobs = slurm.submission(
        study,
        common or [],
        planned,
        results,
        read_profile(profile),
        num_tasks=tasks,
        num_at_once=at_once,
    )
    for warning in jobs.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if dry_run:
        typer.echo(f"{jobs.array}\n{jobs.analysis}", nl=False)
        return
    array, analysis = slurm.submit(jobs, results)
    typer.echo(f"submitted {len(planned)} runs as job {array}, and their analysis as job {analysis} behind it")


@lab_app.command(epilog="Example: foreloom lab pull me@cluster:study/results --dry-run")
def pull(
    source: Annotated[str, typer.Argument(help="Where the results lie: user@host:path, or a folder.")],
    results: ResultsOption = Path("results"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the command and what it would fetch.")] = False,
) -> None:
    """Fetch the CSVs and configurations of studies from another machine; what is further on here stays."""
    from foreloom.lab.pull import command, run_rsync
    from foreloom.lab.pull import pull as fetch

    if dry_run:
        import shlex

        arguments = command(source, results, dry_run=True)
        typer.echo(shlex.join(arguments))
        typer.echo(run_rsync(arguments), nl=False)
        return
    done = fetch(source, results)
    typer.echo(f"{len(done.taken)} runs taken, {len(done.kept)} are as far here or further")
    for name in done.taken:
        typer.echo(f"  {name}")
