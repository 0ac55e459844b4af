"""`foreloom doctor`: is this machine fit for a run, do its ranks belong together, and what is to be done?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from foreloom.cli.arguments import JsonOption, OverridesArgument


def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the name of a shipped one: for what it needs.")
    ] = None,
    overrides: OverridesArgument = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Ranks that share this machine (default: as the launcher says, or one).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder, whose disk is tried (default: runs/).")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where ranks would meet.")] = 29500,
    as_json: JsonOption = False,
) -> None:
    """Examine software, GPUs, cores, disk, network and hub, with one remedy a finding. Behind `foreloom launch ...` the
    ranks too: the same code and recipe, different data, gradients that agree, the speed between them.

    The exit code is 1 where something fails that a run needs.
    """
    from foreloom.distributed.launcher import read_launch
    from foreloom.doctor.examine import examine
    from foreloom.doctor.finding import in_words, worst

    findings = examine(recipe, overrides or [], ranks_here=ranks, run_dir=out, port=port)
    if read_launch(os.environ).rank == 0:
        state = worst(findings)
        said = {"state": state, "checks": [one.row for one in findings]}
        typer.echo(json.dumps(said, indent=2) if as_json else in_words(findings))
    if worst(findings) == "failure":
        raise typer.Exit(1)
