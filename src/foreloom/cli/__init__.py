"""The verbs: `foreloom train | fit | evaluate | backtest | calibrate | forecast | generate | show | doctor | plan |
report | lab | launch | data`. Parses, calls, prints; does nothing itself.

Heavy imports stand inside the verbs, so that `foreloom --help` answers at once.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from foreloom import __version__
from foreloom.cli import audit, lab_fit, lab_memory, lab_mup, lab_slurm, lab_study  # noqa: F401, they add verbs
from foreloom.cli.arguments import command_with_hints, flag_of_forecasters
from foreloom.cli.backtest import backtest
from foreloom.cli.calibrate import calibrate
from foreloom.cli.data import data_app
from foreloom.cli.doctor import doctor
from foreloom.cli.evaluate import FLAGS_OF_EVALUATORS, evaluate
from foreloom.cli.fit import fit
from foreloom.cli.forecast import forecast
from foreloom.cli.generate import generate
from foreloom.cli.lab import lab_app
from foreloom.cli.launch import launch_app
from foreloom.cli.plan import plan
from foreloom.cli.report import report_app
from foreloom.cli.train import flag_of_trainers, show, train

app = typer.Typer(
    name="foreloom",
    help="Trains, evaluates and serves sequence foundation models, time series first.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"foreloom {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print foreloom's version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _add(verb: Callable[..., None], example: str, hint: Callable[[str], str | None] = lambda flag: None) -> None:
    app.command(cls=command_with_hints(hint), epilog=f"Example: foreloom {example}")(verb)


_add(train, "train quickstart training.steps=200 --out runs/first", flag_of_trainers)
_add(show, "show chronos2-finetune", flag_of_trainers)
_add(
    fit,
    "fit runs/quickstart examples/births.csv --horizon 28 --season 7 --minutes 5 --out my-model",
    flag_of_forecasters,
)
_add(evaluate, "evaluate runs/quickstart amazon/chronos-2 --tasks examples/tasks.yaml", FLAGS_OF_EVALUATORS.get)
_add(
    backtest,
    "backtest runs/quickstart examples/births.csv --horizon 28 --windows 6 --season 7 --plot",
    flag_of_forecasters,
)
_add(
    calibrate,
    "calibrate runs/quickstart examples/births.csv --horizon 28 --windows 12 --out births-model",
    flag_of_forecasters,
)
_add(forecast, "forecast small examples/births.csv --horizon 28 --out births.csv --plot", flag_of_forecasters)
_add(generate, 'generate runs/tiny "The recipe "', flag_of_forecasters)
_add(doctor, "doctor chronos2-synthetic-cpu --ranks 2")
_add(plan, "plan chronos2-base --gpus 64 --gpu a100-80gb --mfu 0.35 --price 2")
app.add_typer(report_app, name="report")
app.add_typer(lab_app, name="lab")
app.add_typer(launch_app, name="launch")
app.add_typer(data_app, name="data")


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as a sentence, without the line of source it came from."""
    typer.echo(f"warning: {message}", err=True)


def _sentence(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'a file'} could not be written: the disk is full. Free some space."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join([str(error), *getattr(error, "__notes__", [])])


def main() -> None:
    """Run the command line. What users got wrong ends in a sentence and exit code 2, or the error's
    own; what they should know ends in a sentence.

    FORELOOM_TRACEBACK=1 shows the traceback instead.
    """
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)  # a mapped file that is cut short under a run ends in SIGBUS
    warnings.showwarning = _warn
    # Read when torch is imported. Its C++ side warns of what a run does on purpose (parameters a batch leaves out).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("FORELOOM_TRACEBACK"):
            raise
        # Ranks speak with one voice. Torch is not imported for a word.
        ranks = sys.modules.get("foreloom.distributed.process")
        who = ranks.voice() if ranks else ""
        if who is not None:
            typer.echo(f"error: {who}{_sentence(error)}", err=True)
        leave = ranks.leave if ranks else sys.exit
        leave(getattr(error, "exit_code", 2))
