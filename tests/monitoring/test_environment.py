"""The environment record names what a rerun needs and nothing about the machine's owner; peaks by names of devices."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
import torch

from foreloom.monitoring.environment import environment, find_peak, peak_flops, utilisation, write_environment


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


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA L40S", 362.1),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GH200 480GB", 989.4),
        ("AMD Instinct MI250X", 191.5),  # torch sees the two halves of a card
        ("AMD Instinct MI300X", 1307.4),
    ],
)
def test_known_devices(name, teraflops):
    assert peak_flops(name) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name",
    ["NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D",
     "NVIDIA GeForce RTX 3090 Ti", "NVIDIA H20", "NVIDIA H800", "Tesla V100-SXM2-16GB", "cpu"],
)  # fmt: skip
def test_unknown_devices_have_no_peak(name):
    assert peak_flops(name) is None


def test_a_run_says_where_its_peak_comes_from_or_why_it_has_none():
    cpu = torch.device("cpu")
    assert find_peak(cpu, None).flops is None
    assert "'cpu' is not known; monitoring.peak_flops" in find_peak(cpu, None).sentence
    assert find_peak(cpu, 2e11) == (2e11, "of 0.2 TFLOP/s a device, as monitoring.peak_flops says")


def test_utilisation():
    assert utilisation(8e15, seconds=2.0, num_devices=4, peak=1e15) == 1.0
