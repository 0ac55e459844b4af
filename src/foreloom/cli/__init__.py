"""The verbs: `foreloom train | evaluate | forecast | generate | show | report | lab | data`. Parses, calls, prints;
does nothing itself.

Heavy imports stand inside the verbs, so that `foreloom --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings

import typer

from foreloom.cli.data import data_app
from foreloom.cli.evaluate import evaluate
from foreloom.cli.forecast import forecast
from foreloom.cli.generate import generate
from foreloom.cli.lab import lab_app
from foreloom.cli.report import report_app
from foreloom.cli.train import show, train

app = typer.Typer(
    name="foreloom",
    help="Trains, evaluates and serves sequence foundation models, time series first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _verb in (train, show, evaluate, forecast, generate):
    app.command()(_verb)
app.add_typer(report_app, name="report")
app.add_typer(lab_app, name="lab")
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
    """Run the command line. What users got wrong ends in a sentence and exit code 2, what they should know in one.

    FORELOOM_TRACEBACK=1 shows the traceback instead.
    """
    warnings.showwarning = _warn
    # Read when torch is imported. Its C++ side warns of what a run does on purpose (parameters a batch leaves out).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("FORELOOM_TRACEBACK"):
            raise
        typer.echo(f"error: {_sentence(error)}", err=True)
        sys.exit(2)
