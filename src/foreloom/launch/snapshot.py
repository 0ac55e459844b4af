"""The code of a run as it is when the run is handed in: what waits in a queue does not change while users edit."""

from __future__ import annotations

import shutil
from pathlib import Path

import foreloom

CODE = "code"
"""In a run folder."""


def snapshot(run_dir: Path) -> Path:
    """Copy the package into the run folder; the folder for PYTHONPATH. An earlier copy is replaced: the newest job of a
    folder is the one that runs."""
    code = run_dir / CODE
    beside = run_dir / f".{CODE}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    package = Path(foreloom.__file__).parent
    shutil.copytree(package, beside / "foreloom", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(code, ignore_errors=True)
    beside.rename(code)
    return code
