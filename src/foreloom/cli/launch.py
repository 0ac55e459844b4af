"""`foreloom launch`: where a verb is to run and how it is started there, then the verb as one would type it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from foreloom.launch.command import Command
    from foreloom.launch.hosts import Host

launch_app = typer.Typer(
    help="Start a verb on many devices: foreloom launch WHERE [how] VERB ... as it would be typed.",
    no_args_is_help=True,
)
_VERB_FOLLOWS = {"allow_interspersed_args": False, "ignore_unknown_options": False}

VerbArgument = Annotated[list[str], typer.Argument(help="The verb and all that follows it: train chronos2-base ...")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be run, and run nothing.")]
ProfileOption = Annotated[Path | None, typer.Option(help="A YAML file of the site: hosts, slurm, environment, port.")]
PortOption = Annotated[int | None, typer.Option(min=1, max=65535, help="Where ranks meet on the first machine.")]
RestartsOption = Annotated[int, typer.Option(min=0, help="Times that all ranks are started anew after one failed.")]


@launch_app.command(context_settings=_VERB_FOLLOWS, epilog="Example: foreloom launch local --gpus 0,1 train quickstart")
def local(
    verb: VerbArgument,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Ranks (default: one for each GPU, or one on the CPU).")
    ] = None,
    gpus: Annotated[str | None, typer.Option(help="Their numbers, 0,2; default: all that are seen.")] = None,
    max_restarts: RestartsOption = 0,
    profile: ProfileOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """On this machine: all GPUs, some of them, or several processes on the CPU."""
    _check_verb(verb)
    from foreloom.launch.command import local_command
    from foreloom.launch.profile import read_profile

    site = read_profile(profile)
    numbers = _numbers(gpus) if gpus else []
    if numbers and processes not in (None, len(numbers)):
        raise ValueError(
            f"--processes {processes} and --gpus {gpus} ({len(numbers)} of them): each takes one. Leave one out."
        )
    seen = 0 if dry_run and (numbers or processes) else _num_gpus()
    if not dry_run and numbers and max(numbers) >= seen:
        raise ValueError(f"--gpus {gpus}: torch sees {seen} GPUs here, numbered from 0. Name some of these.")
    count = processes or len(numbers) or seen or 1
    if processes and 0 < seen < processes:
        raise ValueError(
            f"--processes {processes}: torch sees {seen} GPUs here, and each process takes one. Ask for no more."
        )
    threads = max(1, len(os.sched_getaffinity(0)) // count) if count > 1 and not (numbers or seen) else 0
    command = local_command(
        verb,
        count,
        gpus=_as_visible(numbers),
        threads=threads,
        max_restarts=max_restarts,
        environment=site.environment,
    )
    _run(command, dry_run)


@launch_app.command(context_settings=_VERB_FOLLOWS, epilog="Example: foreloom launch mpirun --hostfile hosts train x")
def mpirun(
    verb: VerbArgument,
    hostfile: Annotated[
        Path | None, typer.Option(envvar="HOSTFILE", help="Lines `host slots=N`; the first host is where ranks meet.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Ranks (default: all slots, or all GPUs here).")] = None,
    port: PortOption = None,
    profile: ProfileOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """By Open MPI: the machines of a hostfile, or this one."""
    _check_verb(verb)
    from foreloom.distributed.network import free_port, is_free, is_this_machine
    from foreloom.launch.command import mpirun_command
    from foreloom.launch.hosts import check_hosts, read_hostfile
    from foreloom.launch.profile import read_profile

    site = read_profile(profile)
    machines = read_hostfile(hostfile) if hostfile else None
    if machines:
        check_hosts(machines.hosts)
        slots = sum(host.num_ranks for host in machines.hosts)
        if processes and processes > slots:
            raise ValueError(
                f"--processes {processes}: {hostfile} has {slots} slots. Ask for no more, or give it more."
            )
    count = processes or (0 if machines else _num_gpus() or 1)
    port = port or site.port
    if not machines and not is_free(port):
        port = free_port()
    if machines and not dry_run:
        _check_here(machines.hosts[0], port, meets=is_this_machine(machines.hosts[0].address))
    command = mpirun_command(
        verb,
        hostfile=machines,
        num_processes=count,
        port=port,
        environment=site.environment,
        is_root=os.geteuid() == 0,
    )
    _run(command, dry_run)


@launch_app.command(
    context_settings=_VERB_FOLLOWS,
    epilog="Example: foreloom launch nodes --node 10.0.0.1:8 --node 10.0.0.2:8 train chronos2-base",
)
def nodes(
    verb: VerbArgument,
    node: Annotated[
        list[str] | None,
        typer.Option(help="ADDRESS:8, processes on a machine, or ADDRESS:2,3, its GPUs; that of rank 0 first."),
    ] = None,
    total: Annotated[int | None, typer.Option(min=1, help="Processes in all, to be checked.")] = None,
    port: PortOption = None,
    max_restarts: RestartsOption = 0,
    profile: ProfileOption = None,
    this: Annotated[
        int | None,
        typer.Option(min=0, help="Start the processes of this machine, counted from 0, instead of printing."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """On machines without a scheduler: prints what is to be typed on each."""
    _check_verb(verb)
    from foreloom.launch.command import node_commands
    from foreloom.launch.hosts import check_hosts, parse_host
    from foreloom.launch.profile import read_profile

    site = read_profile(profile)
    hosts = [parse_host(one) for one in node] if node else list(site.hosts)
    if not hosts:
        raise ValueError("no machine is named: give --node ADDRESS:N for each, or a --profile with hosts.")
    check_hosts(hosts, total or site.total)
    python = "python" if this is None else sys.executable
    commands = node_commands(
        verb,
        hosts,
        port=port or site.port,
        max_restarts=max_restarts,
        environment=site.environment,
        python=python,
    )
    if this is None:
        first = 0
        for host, command in zip(hosts, commands, strict=True):
            last = first + host.num_ranks - 1
            typer.echo(f"# on {host.address}: {f'rank {first}' if first == last else f'ranks {first} to {last}'}")
            typer.echo(command.text)
            first = last + 1
        return
    if this >= len(hosts):
        raise ValueError(f"--this {this}: there are {len(hosts)} machines, counted from 0.")
    if not dry_run:
        _check_here(hosts[this], port or site.port, meets=this == 0)
    _run(commands[this], dry_run)


@launch_app.command(
    context_settings=_VERB_FOLLOWS,
    epilog="Example: foreloom launch slurm --nodes 2 --gpus 8 --dry-run train chronos2-base",
)
def slurm(
    verb: VerbArgument,
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of each, a process each.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes on each, where there are no GPUs.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores of each process.")] = None,
    memory: Annotated[str | None, typer.Option(help="Of each machine: 64G.")] = None,
    time: Annotated[str | None, typer.Option(help="The most it may take: 24:00:00.")] = None,
    partition: Annotated[str | None, typer.Option(help="Which machines.")] = None,
    account: Annotated[str | None, typer.Option(help="Whose budget.")] = None,
    array: Annotated[str | None, typer.Option(help="0-9%4: ten of this job, four at a time.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the job (default: what is trained).")] = None,
    profile: ProfileOption = None,
    port: PortOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """By SLURM: writes a batch job and hands it in. A run that its time ends saves, and is queued again by itself."""
    _check_verb(verb)
    from foreloom.config.loader import COMMAND_LINE, from_words
    from foreloom.launch.profile import read_profile
    from foreloom.launch.slurm import SlurmJob, batch_script

    site = read_profile(profile)
    asked: dict[str, Any] = {
        "nodes": nodes,
        "gpus": gpus,
        "processes": processes,
        "cpus": cpus,
        "memory": memory,
        "time": time,
        "partition": partition,
        "account": account,
        "array": array,
    }
    given = {
        **{field.name: getattr(site.slurm, field.name) for field in dataclasses.fields(site.slurm)},
        "environment": {**site.environment, **site.slurm.environment},
        **{key: value for key, value in asked.items() if value is not None},
    }
    job = from_words(SlurmJob, given, COMMAND_LINE)
    if job.array and verb[0] == "train" and "--resume" not in verb:
        raise ValueError(
            f"--array {job.array}: all tasks would train into one folder, which all but the first would refuse. Runs "
            "that differ are a study (foreloom lab submit); one run has several turns with --array 0-9%1 and --resume."
        )
    folder, verb, code = _settle(verb, dry_run=dry_run)
    log = str(folder / "slurm-%j.out") if folder else "slurm-%j.out"
    text = batch_script(
        verb,
        job,
        name=name or (folder.name if folder else verb[0]),
        log=log,
        folder=Path.cwd(),
        code=code,
        port=port or site.port,
    )
    if dry_run:
        typer.echo(text, nl=False)
        return
    from foreloom.files import write_text

    script = (folder or Path.cwd()) / "job.sh"
    write_text(script, text)
    _run_program(["sbatch", str(script)], "SLURM is not installed here: run this where sbatch is, or add --dry-run")


def _settle(verb: Sequence[str], *, dry_run: bool) -> tuple[Path | None, list[str], Path | None]:
    """A training's run folder, the verb with code and recipe as they are now, and where that code lies. Of other verbs
    only the verb."""
    from foreloom.launch.command import run_folder

    if verb[0] != "train":
        return None, list(verb), None
    from foreloom import run
    from foreloom.launch.snapshot import CODE, snapshot

    rest = [word for before, word in pairwise(verb[1:]) if before != "--out"]
    name, overrides = verb[1], [word for word in rest if "=" in word and not word.startswith("-")]
    recipe = run.load(name, overrides, need_data=not dry_run)
    training = recipe.sections["training"]
    folder = (run_folder(verb) or Path(training.output_dir or Path("runs") / recipe.path.stem)).absolute()
    if not dry_run:
        from foreloom.files import write_text

        snapshot(folder)
        write_text(folder / CODE / run.RECIPE_NAME, recipe.to_yaml())
    options = [word for word in rest if word.startswith("-") and word.partition("=")[0] != "--out"]
    settled = ["train", str(folder / CODE / run.RECIPE_NAME), "--out", str(folder), *options]
    return folder, settled, folder / CODE


def _check_verb(verb: Sequence[str]) -> None:
    """What is misspelt is told here, not by every rank."""
    from foreloom.cli import app

    known = [
        *(command.name or command.callback.__name__ for command in app.registered_commands if command.callback),
        *(group.name for group in app.registered_groups if group.name and group.name != "launch"),
    ]
    if verb[0] not in known:
        raise ValueError(
            f"{verb[0]!r} is no verb of foreloom; after WHERE and its options comes one of {', '.join(known)}."
        )
    if verb[0] in ("train", "show"):
        from foreloom.config.shipped import find_recipe

        if len(verb) < 2 or verb[1].startswith("-"):
            raise ValueError(f"{verb[0]} needs a recipe right behind it, a file or a shipped one's name.")
        find_recipe(verb[1])


def _check_here(host: Host, port: int, *, meets: bool) -> None:
    """ValueError where this machine, `host`, has too few GPUs for its processes, or ranks are to meet here (`meets`) at
    a port that is taken."""
    from foreloom.distributed.network import is_free

    if meets and not is_free(port):
        raise ValueError(
            f"ranks are to meet at port {port} of this machine, where something listens already (`ss -ltnp` tells "
            f"what): another run? Choose another for all machines: --port {port + 1}."
        )
    seen = _num_gpus()
    if (host.gpus and not seen) or (seen and seen < host.num_ranks):
        raise ValueError(
            f"{host.address} is to give {host.num_ranks} GPUs, and torch sees {seen} here. Say what it has."
        )


def _numbers(text: str) -> list[int]:
    words = [word for word in text.split(",") if word.strip()]
    if not words or not all(word.strip().isdecimal() for word in words) or len(set(words)) < len(words):
        raise ValueError(f"--gpus {text}: write different numbers, 0,2,3.")
    return [int(word) for word in words]


def _as_visible(numbers: Sequence[int]) -> list[str]:
    """GPUs by their number among those that CUDA_VISIBLE_DEVICES leaves, as it names them itself."""
    visible = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    return [visible[number] if number < len(visible) else str(number) for number in numbers]


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _run(command: Command, dry_run: bool) -> None:
    if dry_run:
        typer.echo(command.text)
        return
    missing = "Open MPI is not installed here (Debian: apt install openmpi-bin)"
    _run_program(command.arguments, missing, {**os.environ, **command.environment})


def _run_program(arguments: Sequence[str], missing: str, environment: dict[str, str] | None = None) -> None:
    """Its exit code is ours. A Ctrl-C reaches it by the terminal; it is waited for."""
    import signal

    try:
        process = subprocess.Popen(arguments, env=environment)
    except FileNotFoundError:
        raise ValueError(f"there is no {arguments[0]}. {missing}.") from None
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda received, frame: process.send_signal(received))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = process.wait()
    raise typer.Exit(code if code >= 0 else 128 - code)
