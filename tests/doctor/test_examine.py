"""The doctor on this machine, alone and as two ranks."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foreloom.cli import app
from foreloom.distributed.network import free_port, interfaces, is_free, loopback_of
from foreloom.doctor import facts
from forked import Rank

RANKS = """
import sys
from foreloom.distributed import parallelize
from foreloom.doctor import facts

facts.HUB_SECONDS = 0.1
if "averaged" in sys.argv:  # as DDP does by itself
    inner = parallelize._sum_bucket
    parallelize._sum_bucket = lambda state, bucket: inner(state, bucket).then(lambda done: done.value() / 2)
sys.argv = ["foreloom", "doctor", "--json", *sys.argv[2:]]
from foreloom.cli import main

main()
"""


def test_the_doctor_tells_people_and_programs(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(facts, "_status", lambda *_: (None, "no network in tests"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.chdir(tmp_path)
    run = lambda *words: CliRunner().invoke(app, ["doctor", *words])
    asked = ["quickstart", "training.force_conservative_cpu=true", "data.num_prefetch=3", "--ranks", "2"]
    told = json.loads(run(*asked, "--json").output)
    rows = {one["name"]: one for one in told["checks"]}
    assert rows["recipe"]["found"].startswith("quickstart: 1,") and rows["loader"]["value"] == 3
    assert rows["threads"]["value"] >= 1 and "force_conservative_cpu" in rows["threads"]["found"]
    assert rows["data speed"]["value"]["num_rows"] >= 32 and rows["data speed"]["state"] == "ok"
    assert rows["cores"]["value"] >= 1 and "by 2 ranks here" in rows["cores"]["found"]
    assert rows["disk"]["value"]["bytes_per_second"] > 0 and rows["hub"]["state"] == "advice"
    assert "a token is set" in rows["hub"]["found"] and "hf_secret" not in json.dumps(told)
    wanted = {"python", "packages", "extras", "flash-attn", "CUDA", "memory", "shared", "open files", "addresses"}
    assert wanted | {"host name", "port"} <= rows.keys()

    failed = run("quickstart", "data.sources.0.path=nowhere.parquet")
    assert failed.exit_code == 1 and "no such file or folder: nowhere.parquet" in failed.output
    assert "1 of failure" in failed.output.splitlines()[-1]
    gated = run("gemma3-270m-finetune", "data.sources=[{path: x.jsonl}]", "training.device=cuda")
    assert gated.exit_code == 1 and "google/gemma-3-270m is not in the cache" in gated.output
    assert isinstance(run("quikstart").exception, ValueError)


def test_names_and_ports_of_this_machine() -> None:
    assert loopback_of("localhost") in ("127.0.0.1", "::1") and loopback_of("no.such.name.invalid") == ""
    assert all(not address.startswith("127.") for address in interfaces().values())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not is_free(taken.getsockname()[1])
    assert is_free(free_port())


def test_file_systems_are_told_by_the_longest_mount(tmp_path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nbucket {tmp_path} fuse.s3fs rw 0 0\n")
    assert facts._filesystem(tmp_path / "runs", mounts) == "fuse.s3fs"
    assert facts._filesystem(Path("/"), mounts) == "ext4"
    assert facts._filesystem(tmp_path, tmp_path / "none") == ""


@pytest.mark.timeout(280)
def test_two_ranks_examine_one_another(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = {kind: start(tmp_path, kind) for kind in ("as it is", "averaged")}
    rows = {one["name"]: one for one in told["as it is"]["checks"]}
    for name in ("same code", "same recipe", "same versions", "different data", "same gradients"):
        assert rows[name]["state"] == "ok", rows[name]
    assert rows["ranks"]["value"] == 2 and "2 by torchrun" in rows["ranks"]["found"]
    assert 0 < rows["same gradients"]["value"] < 1e-4 and rows["all-reduce"]["value"] > 0
    assert rows["clocks"]["value"] < 1 and "port" not in rows
    wrong = {one["name"]: one for one in told["averaged"]["checks"]}
    assert wrong["same gradients"]["state"] == told["averaged"]["state"] == "failure"


def start(tmp_path: Path, kind: str) -> dict:
    """What rank 0 of two says, the second one in the same code or not."""
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    its = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [Rank(script, [kind], its | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    codes = [rank.wait(timeout=130) for rank in ranks]
    outputs = [rank.output() for rank in ranks]
    assert codes == [kind == "averaged"] * 2, outputs
    assert outputs[1][0] == ""
    return json.loads(outputs[0][0])
