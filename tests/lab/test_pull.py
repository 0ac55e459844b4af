"""Results of another machine: what is fetched, and that what is further on here stays."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foreloom.cli import app
from foreloom.lab.pull import command, last_step, merge, pull

RSYNC = """#!/bin/bash
# Copies the last but one argument's content to the last.
echo "$@" >> "$CALLS"
case " $* " in *" --dry-run "*) echo ">f+++++++++ s/a.csv"; exit 0;; esac
[ -d "${@: -2:1}" ] || { echo "rsync: no such folder" >&2; exit 23; }
cp -r "${@: -2:1}." "${@: -1}"
"""


def write(folder: Path, label: str, steps: int, config: str = "{}") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{step},1.0\n" for step in range(1, steps + 1))
    (folder / f"{label}.csv").write_text(f"optimizer_step,loss\n{rows}")
    (folder / f"config_{label}.json").write_text(config)


@pytest.fixture
def there(tmp_path) -> Path:
    for label, steps in (("new", 3), ("longer", 9), ("shorter", 2), ("equal", 5)):
        write(tmp_path / "there" / "s", label, steps, '{"from": "there"}')
    for label, steps in (("longer", 4), ("shorter", 7), ("equal", 5)):
        write(tmp_path / "here" / "s", label, steps, '{"from": "here"}')
    return tmp_path / "there"


def test_what_is_further_on_is_kept_with_its_configuration(there, tmp_path):
    here = tmp_path / "here"
    done = merge(there, here)
    assert done.taken == ("s/longer.csv", "s/new.csv") and done.kept == ("s/equal.csv", "s/shorter.csv")
    steps = {path.stem: last_step(path) for path in (here / "s").glob("*.csv")}
    assert steps == {"new": 3, "longer": 9, "shorter": 7, "equal": 5}
    from_there = {path.stem for path in (here / "s").glob("config_*") if "there" in path.read_text()}
    assert from_there == {"config_new", "config_longer"}
    assert merge(there, here).taken == ()


def test_rsync(there, tmp_path, monkeypatch):
    (tmp_path / "rsync").write_text(RSYNC)
    (tmp_path / "rsync").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    here = tmp_path / "here"
    shutil.rmtree(here)
    told = CliRunner().invoke(app, ["lab", "pull", "me@far:study/results", "--results", str(here), "--dry-run"])
    assert told.exit_code == 0 and ">f+++++++++ s/a.csv" in told.output
    assert "rsync -az --prune-empty-dirs --dry-run --itemize-changes '--exclude=/*/runs/'" in told.output
    assert f"me@far:study/results/ {here}/" in told.output and not here.exists()
    assert len(pull(f"{there}", here).taken) == 4
    assert sorted(path.name for path in here.iterdir()) == ["s"]
    with pytest.raises(ValueError, match=r"rsync failed \(exit code 23\): rsync: no such folder"):
        pull(str(tmp_path / "nowhere"), here)
    monkeypatch.setenv("PATH", str(tmp_path / "s"))
    with pytest.raises(ValueError, match="rsync is not installed"):
        pull(str(there), here)
    assert command("a@b:c/", here)[-2:] == ["a@b:c/", f"{here}/"]


def test_a_broken_file(tmp_path):
    (tmp_path / "a.csv").write_text("optimizer_step,loss\nx,1\n")
    with pytest.raises(ValueError, match=r"a\.csv: a step is no number"):
        last_step(tmp_path / "a.csv")
