"""The environment record names what a rerun needs and nothing about the machine's owner; peaks by names of devices."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
import torch

from foreloom.monitoring.environment import environment, find_peak, utilisation, write_environment


def read(folder):
    return json.loads((folder / "environment.json").read_text(encoding="utf-8"))


def test_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/foreloom", "train", "my recipe.yaml"])
    write_environment(tmp_path)
    found = read(tmp_path)
    assert found["command"] == "foreloom train 'my recipe.yaml'"
    assert found["git"] is None
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["memory_bytes"] > 2**28
    assert platform.node() not in json.dumps(found["hardware"])


@pytest.mark.parametrize(
    ("told", "command"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "torchrun --standalone --nproc-per-node 2"),
        (
            {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"},
            "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:PORT",
        ),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}, "mpirun -n 3 python"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, "srun -n 4 python"),
    ],
)
def test_ranks_are_part_of_the_command(monkeypatch, told, command):
    for name, value in (told | {"MASTER_ADDR": "node"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["/x/foreloom/__main__.py", "train", "quickstart"])
    assert environment()["command"] == f"{command} -m foreloom train quickstart"


def test_a_module_is_named_by_the_command_that_starts_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/foreloom/__main__.py", "train", "quickstart"])
    assert environment()["command"] == "python -m foreloom train quickstart"


def test_the_commit_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = lambda *arguments: subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout
    run("init", "-q")
    (tmp_path / "a").write_text("1")
    run("add", "a")
    run("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "first")
    write_environment(tmp_path)
    assert read(tmp_path)["git"] == {"commit": run("rev-parse", "HEAD").strip(), "dirty": False}
    (tmp_path / "a").write_text("2")
    write_environment(tmp_path)
    assert read(tmp_path)["git"]["dirty"] is True


def test_a_run_says_where_its_peak_comes_from_or_why_it_has_none():
    cpu = torch.device("cpu")
    assert find_peak(cpu, None).flops is None
    assert "'cpu' is not known; monitoring.peak_flops" in find_peak(cpu, None).sentence
    assert find_peak(cpu, 2e11) == (2e11, "of 0.2 TFLOP/s a device, as monitoring.peak_flops says")


def test_utilisation():
    assert utilisation(8e15, seconds=2.0, num_devices=4, peak=1e15) == 1.0
