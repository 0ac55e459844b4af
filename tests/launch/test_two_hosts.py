"""Two network namespaces as two hosts: the commands that `launch nodes` prints really meet over a cable."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_launch import RECIPE
from typer.testing import CliRunner

from foreloom.cli import app

ADDRESSES = ("10.231.77.1", "10.231.77.2")


def ip(words: str, *, check: bool = True) -> bool:
    return subprocess.run(["ip", *words.split()], capture_output=True, check=check).returncode == 0


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Names of two namespaces with an address each, joined by a pair of virtual Ethernet devices."""
    names, ends = ([f"{kind}{os.getpid()}{side}" for side in "ab"] for kind in ("foreloom", "fl"))
    if os.name != "posix" or not shutil.which("ip") or os.geteuid():
        pytest.skip("network namespaces are made by root, with iproute2")
    with contextlib.ExitStack() as stack:
        for name in names:
            if not ip(f"netns add {name}", check=False):
                pytest.skip("this machine allows no network namespaces")
            stack.callback(ip, f"netns del {name}", check=False)
        ip(f"link add {ends[0]} netns {names[0]} type veth peer name {ends[1]} netns {names[1]}")
        for name, end, address in zip(names, ends, ADDRESSES, strict=True):
            ip(f"-n {name} addr add {address}/24 dev {end}")
            ip(f"-n {name} link set {end} up")
            ip(f"-n {name} link set lo up")
        yield names


@pytest.mark.timeout(280)
def test_printed_commands_meet_over_an_address_that_is_no_loopback(hosts, tmp_path) -> None:
    recipe, folder = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    nodes = [word for address in ADDRESSES for word in ("--node", f"{address}:1")]
    train = ["train", str(recipe), "training.steps=2", "--out", str(folder)]
    printed = CliRunner().invoke(app, ["launch", "nodes", *nodes, "--total", "2", *train]).output.splitlines()
    commands = [shlex.split(line) for line in printed if not line.startswith("#")]
    assert len(commands) == 2 and all(command[0] == "python" for command in commands)
    source = Path(__file__).resolve().parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    environment.pop("GLOO_SOCKET_IFNAME", None)
    started = [
        subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, *command[1:]],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for host, command in zip(hosts, commands, strict=True)
    ]  # fmt: skip
    try:
        told = [one.communicate(timeout=240)[0] for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [0, 0], told
    manifest = json.loads((folder / "checkpoints" / "final" / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (2, 2)
