"""Results of another machine, fetched by rsync: of each run the CSV that is further on, here or there, is kept."""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from foreloom.files import whole_or_absent
from foreloom.lab.study.results import config_path

_ONLY_RESULTS = (
    "--exclude=/*/runs/", "--include=*/", "--include=*.csv", "--include=config_*.json", "--include=fit.json",
    "--exclude=*",
)  # fmt: skip


@dataclass(frozen=True)
class Pulled:
    """What became of the runs there."""

    taken: tuple[str, ...]
    """New here, or further on there."""
    kept: tuple[str, ...]
    """As far here, or further."""


def command(source: str, target: Path, *, dry_run: bool = False) -> list[str]:
    """rsync for the results below a folder (user@host:path), without the folders of runs."""
    return ["rsync", "-az", "--prune-empty-dirs", *(["--dry-run", "--itemize-changes"] if dry_run else []),
            *_ONLY_RESULTS, f"{source.rstrip('/')}/", f"{target}/"]  # fmt: skip


def pull(source: str, results: Path) -> Pulled:
    """Fetch and merge. A run is its CSV and its configuration, taken together: the ones with the later last step, those
    here where both have the same. ValueError in rsync's own words where it fails."""
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pulled-", dir=results) as folder:
        there = Path(folder)
        run_rsync(command(source, there))
        return merge(there, results)


def run_rsync(arguments: list[str]) -> str:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError("rsync is not installed on this machine; install it, or copy the folder by hand.") from None
    if done.returncode:
        raise ValueError(f"rsync failed (exit code {done.returncode}): {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def merge(there: Path, here: Path) -> Pulled:
    """What lies in one folder of results into another."""
    taken, kept = [], []
    for path in sorted(there.glob("*/*.csv")):
        name = str(path.relative_to(there))
        own = here / name
        if own.is_file() and last_step(own) >= last_step(path):
            kept.append(name)
            continue
        taken.append(name)
        for source in (path, config_path(path.parent, path.stem)):
            if source.is_file():
                with whole_or_absent(here / source.relative_to(there)) as beside:
                    shutil.copyfile(source, beside)
    for path in sorted([*there.glob("*/config_*.json"), *there.glob("*/fit.json")]):
        own = here / path.relative_to(there)
        if not own.exists():
            with whole_or_absent(own) as beside:
                shutil.copyfile(path, beside)
    return Pulled(tuple(taken), tuple(kept))


def last_step(path: Path) -> float:
    """Of a run's CSV; -inf for one without rows."""
    with path.open(newline="", encoding="utf-8") as file:
        steps = [row.get("optimizer_step") or row.get("step") for row in csv.DictReader(file)]
    try:
        return max((float(step) for step in steps if step), default=-math.inf)
    except ValueError:
        raise ValueError(
            f"{path}: a step is no number; repair the file, or delete it, before results are merged."
        ) from None
