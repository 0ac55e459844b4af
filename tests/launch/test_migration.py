"""Every launching command of the systems that users come from has one here, and it says what it would start."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from foreloom.cli import app

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = {"TSM-Trainer", "Chronos-T5 with experts", "Gemma tuner", "Time-MoE", "scaling lab"}
THEIRS = (
    "train_chronos2.py", "train.sh", "mpirun", "scripts/training/train.py", "test_training_comparison.py",
    "accelerate launch --multi_gpu", "run_node0.sh", "run_node1.sh", "multinode_train.sh", "verify_setup.sh",
    "python main.py -d", "python torch_dist_run.py main.py", "WORLD_SIZE=2", "run_eval.py", "submit_job.sh",
    "submit_lr.sh",
)  # fmt: skip


def rows() -> list[tuple[str, str, str]]:
    """System, their command, ours."""
    section = (ROOT / "docs" / "migration.md").read_text().partition("# Launching: their")[2]
    found = re.findall(r"^\| ([^|`]*?) ?\| (.*) \| `(foreloom [^`]+)` \|$", section, flags=re.MULTILINE)
    assert len(found) == len(re.findall(r"^\|", section, flags=re.MULTILINE)) - 2
    return found


def dry(words: list[str]) -> list[str] | None:
    """What shows what a command would start, without starting it; None where only its words can be tried."""
    match words:
        case ["launch", where, *rest]:
            return ["launch", where, "--dry-run", *rest]
        case ["train", *rest]:
            return ["show", *rest]
        case ["lab", "submit", *rest]:
            return ["lab", "submit", "--dry-run", *rest]
        case ["lab", "list"]:
            return words
    return None


def test_every_launching_command_of_the_five_systems_has_one_here() -> None:
    assert {system for system, _, _ in rows() if system} == SYSTEMS
    told = " ".join(theirs for _, theirs, _ in rows())
    assert [command for command in THEIRS if command not in told] == []


def test_ours_run_dry(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").write_text("gpu1 slots=8\ngpu2 slots=8\n")
    shown = {}
    for _, _, ours in rows():
        words = shlex.split(ours)[1:]
        if tried := dry(words):
            done = CliRunner().invoke(app, tried)
            assert done.exit_code == 0, (ours, done.exception, done.output)
            shown[ours] = done.output
        else:
            group, rest = typer.main.get_command(app), words
            while hasattr(group, "commands"):
                group, rest = group.commands[rest[0]], rest[1:]
            assert group.make_context("tried", list(rest)).args == [], ours
    assert "-np 16 --hostfile hosts" in next(text for ours, text in shown.items() if "--hostfile" in ours)
    assert "#SBATCH --nodes=8" in next(text for ours, text in shown.items() if "slurm --nodes 8" in ours)
    assert "--node-rank=1 --nproc-per-node=8 --master-addr=10.0.0.1" in next(
        text for ours, text in shown.items() if "--this 1" in ours
    )


def test_the_image_is_made_of_what_is_there(tmp_path) -> None:
    """No container is built here: its steps are read, and the wheel is made of exactly what is copied into it."""
    pytest.importorskip("hatchling.builders.wheel", reason="builds the wheel; pip install hatchling")
    from hatchling.builders.wheel import WheelBuilder

    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert next(name for name, _ in steps) == "FROM"
    assert {name for name, _ in steps} == {"FROM", "RUN", "WORKDIR", "COPY", "ARG", "ENV", "ENTRYPOINT", "CMD"}
    copied = [word for name, words in steps if name == "COPY" for word in words.split()[:-1]]
    kept = {line.lstrip("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == kept
    for name in copied:
        (tmp_path / name).symlink_to(ROOT / name)
    wheel = next(WheelBuilder(str(tmp_path)).build(directory=str(tmp_path / "dist"), versions=["standard"]))
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"foreloom/cli/doctor.py", "foreloom/pretrained/small/model.safetensors"} <= names
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f"foreloom/recipes/{recipe.name}" in names
        beside = re.findall(r"\.\./((?:docs|examples)/[\w./-]+)", recipe.read_text())
        assert {f"foreloom/{path}" for path in beside} <= names, f"{recipe.name}: its data stay behind"
    installed = next(words for name, words in steps if name == "RUN" and "pip install" in words)
    extras = re.search(r"\.\[([\w,]+)\]", installed)
    declared = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert extras and set(extras[1].split(",")) <= set(declared)
    assert [words for name, words in steps if name == "ENTRYPOINT"] == ['["foreloom"]']
