"""What planted facts come to, and the table made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foreloom.distributed.process import Process
from foreloom.doctor import judge
from foreloom.doctor.facts import Devices, Disk, Gpu, Hub, Limits, Loading, Network, Package, Software
from foreloom.doctor.finding import Finding, in_words, of_machines, ok, worst
from foreloom.doctor.judge import Need
from foreloom.doctor.ranks import (
    Place,
    judge_bandwidth,
    judge_clocks,
    judge_gradients,
    judge_places,
    judge_same,
)
from foreloom.run.machine import Machine

GB = 2**30


def states(rows: list[Finding]) -> dict[str, str]:
    return {row.name: row.state for row in rows}


def row(rows: list[Finding], name: str) -> Finding:
    return next(one for one in rows if one.name == name)


def test_versions_are_held_against_pyproject() -> None:
    within = {
        ("2.13.0+cpu", ">=2.11"): True,
        ("2.9", ">=2.11"): False,
        ("6.0.1", "<6,>=5"): False,
        ("5", "<6,>=5"): True,
    }
    within |= {("2.0rc1", ">=2.0"): True, ("2", ">=2.0"): True, ("1.0.0", "<=1.0"): True, ("1.1", ">1.1"): False}
    assert {case: judge.satisfies(*case) for case in within} == within
    packages = (Package("torch", ">=2.11", "2.9.1"), Package("rich", ">=13", None), Package("numpy", ">=2.0", "2.4"))
    extras = (Package("transformers", "<6,>=5", "4.50", "text"), Package("wandb", ">=0.19", None, "wandb"))
    plain = Software("3.12.1", "Linux 6", (*packages, *extras), None)
    rows = judge.judge_software(plain, Need(), has_cuda=True)
    assert states(rows) == {
        "python": "ok",
        "package torch": "failure",
        "package rich": "failure",
        "package transformers": "warning",
        "flash-attn": "ok",
    }
    assert row(rows, "package torch").remedy == "pip install --upgrade 'torch>=2.11'"
    assert "not installed" in row(rows, "package rich").found
    rows = judge.judge_software(replace(plain, packages=packages[2:]), Need(wants_flash_attn=True), has_cuda=True)
    assert states(rows) == {"python": "ok", "packages": "ok", "extras": "ok", "flash-attn": "failure"}
    broken = replace(plain, packages=(), flash_attn="2.8", flash_attn_error="undefined symbol")
    rows = judge.judge_software(broken, Need(), has_cuda=True)
    assert states(rows) == {"python": "ok", "packages": "advice", "flash-attn": "warning"}
    assert "undefined symbol" in row(rows, "flash-attn").found


A100 = Gpu(0, "NVIDIA A100-SXM4-80GB", 80 * GB, 79 * GB, (8, 0))
NODE = Devices("CUDA 12.8", "570.1", "12.8", 2, None, (A100, replace(A100, number=1)))


@pytest.mark.parametrize(
    ("devices", "need", "name", "state", "words"),
    [
        (NODE, Need(), "CUDA", "ok", "driver 570.1 runs CUDA up to 12.8"),
        (replace(NODE, build="", gpus=()), Need(), "CUDA", "warning", "2 GPUs of this machine stay idle"),
        (replace(NODE, build="", gpus=()), Need(device="cuda"), "CUDA", "failure", "stay idle"),
        (replace(NODE, gpus=(), error="driver too old"), Need(), "CUDA", "failure", "driver too old"),
        (replace(NODE, gpus=(), visible="-1"), Need(), "CUDA", "failure", "CUDA_VISIBLE_DEVICES=-1 leaves none"),
        (Devices("", "", "", 0, None, ()), Need(), "CUDA", "ok", "the CPU alone"),
        (Devices("CUDA 12.8", "", "", 0, None, ()), Need(), "CUDA", "advice", "without a GPU"),
        (Devices("", "", "", 0, None, ()), Need(device="cuda"), "CUDA", "failure", "training.device is cuda"),
        (NODE, Need(ranks_here=4), "GPUs chosen", "failure", "2 of 2 for 4 ranks"),
        (replace(NODE, visible="0,7", gpus=NODE.gpus[:1]), Need(), "GPUs chosen", "failure", "there is no GPU 7"),
        (
            replace(NODE, visible="1", gpus=NODE.gpus[:1]),
            Need(),
            "GPUs chosen",
            "ok",
            "1 of 2 (CUDA_VISIBLE_DEVICES=1)",
        ),
        (NODE, Need(), "GPU 1", "ok", "79.0 GB of 80.0 GB free"),
        (
            replace(NODE, gpus=(replace(A100, free_bytes=40 * GB),)),
            Need(),
            "GPU 0",
            "warning",
            "something else uses it",
        ),
        (replace(NODE, gpus=(replace(A100, error="no kernel image"),)), Need(), "GPU 0", "failure", "no kernel image"),
        (replace(NODE, gpus=(replace(A100, capability=(7, 0)),)), Need(), "GPU 0", "advice", "too old for bf16"),
        (replace(NODE, gpus=(A100, replace(A100, name="A40"))), Need(), "GPUs alike", "warning", "slowest"),
    ],
)
def test_gpus_and_their_driver(devices: Devices, need: Need, name: str, state: str, words: str) -> None:
    found = row(judge.judge_devices(devices, "2.13.0", need), name)
    assert found.state == state and words in found.found, found


def test_the_hub_is_no_reason_to_fail_unless_a_recipe_needs_it() -> None:
    hub = Hub("https://huggingface.co", False, True, 200)
    cases = {
        ("hub", "ok"): hub,
        ("hub", "warning"): replace(hub, status=401),
        ("hub", "advice"): replace(hub, status=None, error="no route"),
        ("hub model", "ok"): replace(hub, model="a/b", model_status=307),
        ("hub model", "failure"): replace(hub, model="a/b", model_status=403),
    }
    for (name, state), its in cases.items():
        assert row(judge.judge_hub(its), name).state == state, its
    assert row(judge.judge_hub(replace(hub, has_token=False, status=401)), "hub").state == "ok"
    assert row(judge.judge_hub(replace(hub, status=503)), "hub").state == "advice"
    assert row(judge.judge_hub(replace(hub, is_offline=True, status=None)), "hub").state == "advice"
    gone = replace(hub, status=None, error="no route", model="a/b")
    assert row(judge.judge_hub(gone), "hub model").state == "failure"
    assert row(judge.judge_hub(replace(gone, is_here=True)), "hub model").state == "ok"
    assert "no a/b" in row(judge.judge_hub(replace(hub, model="a/b", model_status=404)), "hub model").found


def test_disks_and_limits() -> None:
    disk, base = Disk(Path("/data"), 100 * GB, "ext4", 500e6), Need(num_parameters=119_000_000, num_kept=6)
    assert states(judge.judge_disk(disk, base)) == {"disk": "ok", "file system": "ok"}
    assert "a checkpoint is 1.8 GB, 4 s" in judge.judge_disk(disk, base)[0].found
    assert states(judge.judge_disk(replace(disk, free_bytes=10 * GB), base)) == {"disk": "warning"}
    assert states(judge.judge_disk(replace(disk, free_bytes=2 * GB), base)) == {"disk": "failure"}
    assert states(judge.judge_disk(replace(disk, bytes_per_second=None, error="Read-only"), base)) == {
        "disk": "failure"
    }
    assert judge.judge_disk(replace(disk, bytes_per_second=20e6), base)[0].state == "advice"
    for kind, state in {"fuse.s3fs": "warning", "overlay": "advice", "tmpfs": "warning", "nfs4": "ok"}.items():
        assert row(judge.judge_disk(replace(disk, filesystem=kind), base), "file system").state == state
    limits = judge.judge_limits(Limits(256, 64 * 2**20), Need(ranks_here=4), num_gpus=4)
    assert states(limits) == {"open files": "warning", "shared memory": "warning"} and "--ipc=host" in limits[1].remedy
    assert states(judge.judge_limits(Limits(None, 64 * 2**20), Need(), num_gpus=0))["shared memory"] == "advice"
    assert states(judge.judge_limits(Limits(65536, None), Need(), num_gpus=0)) == {"open files": "ok"}


def test_cores_memory_and_threads_of_a_recipe() -> None:
    small = Machine("laptop", 8, {"cgroup": 4}, 16 * GB, 9 * GB, "", True)
    rows = judge.judge_machine(small, {}, Need(num_prefetch=3), torch_threads=8)
    assert set(states(rows).values()) == {"ok"}
    assert row(rows, "cores").value == 4 and row(rows, "threads").value == 4 and row(rows, "loader").value == 3
    assert "4 of 8 may be used (4 by cgroup), by 1 rank here" in row(rows, "cores").found
    forced = judge.judge_machine(small, {}, Need(force_conservative_cpu=True, num_prefetch=0), torch_threads=8)
    assert row(forced, "threads").value == 1 and row(forced, "loader").state == "advice"
    crowded = judge.judge_machine(small, {"OMP_NUM_THREADS": "4"}, Need(ranks_here=12), torch_threads=8)
    assert states(crowded) | {"shared": "ok", "loader": "ok"} == {
        "cores": "warning", "memory": "warning", "shared": "ok", "threads": "warning", "loader": "ok"
    }  # fmt: skip


def test_a_thread_that_cannot_feed_the_device_is_told_with_its_sources() -> None:
    fast = Loading(1024, 0.05, 0.8, ("synth://kernel",))
    assert judge.judge_loading(fast).state == judge.judge_loading(replace(fast, step_seconds=None)).state == "ok"
    slow = judge.judge_loading(replace(fast, cpu_seconds=0.7))
    assert slow.state == "warning" and "synth://kernel" in slow.found and "data synth" in slow.remedy
    assert "the device would wait" in judge.judge_loading(replace(fast, cpu_seconds=0.7, synthetic=())).found


def test_names_that_others_cannot_use_and_taken_ports() -> None:
    network = Network("gpu1", ("10.0.0.1",), {"eth0": "10.0.0.1"}, 29500, True)
    assert set(states(judge.judge_network(network)).values()) == {"ok"}
    debian = judge.judge_network(replace(network, resolves_to=("127.0.1.1",), is_port_free=False))
    assert states(debian) == {"addresses": "ok", "host name": "advice", "port": "warning"}
    assert "its address, 10.0.0.1" in debian[1].remedy and "--port 29501" in debian[2].remedy
    alone = judge.judge_network(replace(network, resolves_to=(), addresses={}))
    assert states(alone) == {"addresses": "advice", "host name": "advice", "port": "ok"}


def test_ranks_that_do_not_belong_together() -> None:
    places = [Place("a", "NVIDIA A100"), Place("a", "NVIDIA A100"), Place("b", "NVIDIA A40")]
    assert judge_places(places[:2], "torchrun").state == "ok"
    odd = judge_places(places, "SLURM")
    assert odd.state == "warning" and "3 by SLURM (a: 2, b: 1)" in odd.found
    assert judge_same("same code", [{"a.py": "1"}] * 2, "copy").state == "ok"
    other = judge_same("same code", [{"a.py": "1", "b.py": "2"}, {"a.py": "1", "b.py": "3"}], "copy")
    assert other.state == "failure" and other.found == "b.py: rank 0 has 2, rank 1 has 3"
    assert judge_clocks(0.01).state == "ok" and judge_clocks(90.0).state == "warning"
    assert judge_gradients(1e-6, "x").state == "ok"
    assert judge_gradients(0.5, "x").state == judge_gradients(float("nan"), "x").state == "failure"
    of = lambda device: Process(0, 4, 0, torch.device(device))
    slow = judge_bandwidth(2**28, 1.0, 10**8, of("cuda"))
    assert slow.state == "warning" and "0.40 GB/s" in slow.found and "take 1.490 s" in slow.found
    assert judge_bandwidth(2**28, 1.0, 10**8, of("cpu")).state == "ok"


def test_findings_of_several_machines_become_one_table() -> None:
    low = Finding("disk", "failure", "no room", "free some")
    a, b, c = [ok("python", "3.11.1"), ok("disk", "x")], [ok("python", "3.11.1"), low], [ok("python", "3.11.2"), low]
    merged = of_machines({"a": a, "b": b, "c": c})
    assert [(one.name, one.state) for one in merged] == [("python", "ok"), ("disk", "ok"), ("disk", "failure")]
    assert merged[2].found == "on b, c: no room" and worst(merged) == "failure"
    text = in_words(merged).splitlines()
    assert text[-1] == "3 checks: 1 of failure" and text[-2].strip() == "-> free some" and text[0].startswith("ok ")
    assert in_words(a).endswith("2 checks: all is well")
    assert low.row == {"name": "disk", "state": "failure", "found": "no room", "remedy": "free some"}
