"""What is started where: the text of every launcher, bad input, and launchers that really start ranks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from fake_slurm import PREEMPT, install
from safetensors.torch import load_file
from typer.testing import CliRunner

from foreloom import run
from foreloom.cli import app
from foreloom.distributed.network import free_port
from foreloom.launch.command import local_command, mpirun_command, node_commands
from foreloom.launch.hosts import Host, check_hosts, parse_host, read_hostfile
from foreloom.launch.profile import read_profile
from foreloom.launch.slurm import SlurmJob, batch_script

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
RECIPE = f"""
model:
  {{family: time_moe, size: test, use_dense: true, horizon_lengths: [8], hidden_size: 16, intermediate_size: 32}}
data:
  sources: [{{path: {DATA}/us_births.parquet, holdout: 16}}]
  context_length: 24
  prediction_length: 8
  normalization: zero
training: {{steps: 24, batch_size: 4, device: cpu, seed: 5}}
monitoring: {{log_steps: 1, trackers: [none]}}
"""
TRAIN = ["train", "chronos2-base", "training.steps=5"]


def test_text_of_local_nodes_and_mpirun(tmp_path) -> None:
    text = lambda *arguments, **settings: local_command(TRAIN, *arguments, python="python", **settings).text
    assert text(1, gpus=[3]) == "CUDA_VISIBLE_DEVICES=3 python -m foreloom train chronos2-base training.steps=5"
    assert text(2, threads=4, max_restarts=3) == (
        "OMP_NUM_THREADS=4 python -m torch.distributed.run --standalone --nproc-per-node=2 --max-restarts=3 "
        "-m foreloom train chronos2-base training.steps=5"
    )
    hosts = [parse_host("10.0.0.1:2,3"), parse_host("10.0.0.2:4"), parse_host("10.0.0.3:1,")]
    check_hosts(hosts, total=7)
    first, second, third = (one.text for one in node_commands(TRAIN, hosts, environment={"NCCL_DEBUG": "INFO"}))
    assert first == (
        "NCCL_DEBUG=INFO CUDA_VISIBLE_DEVICES=2,3 python -m torch.distributed.run --nnodes=3 --node-rank=0 "
        "--nproc-per-node=2 --master-addr=10.0.0.1 --master-port=29500 --max-restarts=0 "
        "-m foreloom train chronos2-base training.steps=5"
    )
    assert "--node-rank=1 --nproc-per-node=4 --master-addr=10.0.0.1" in second and "CUDA_VISIBLE" not in second
    assert "CUDA_VISIBLE_DEVICES=1 " in third

    (tmp_path / "hosts").write_text("# ours\ngpu1 slots=8\n\ngpu2 slots=4 max_slots=8 # half\n")
    hostfile = read_hostfile(tmp_path / "hosts")
    assert mpirun_command(TRAIN, hostfile=hostfile, python="python", environment={"A": "b c"}).text == (
        f"mpirun -np 12 --hostfile {tmp_path}/hosts --map-by slot --bind-to none -x MASTER_ADDR=gpu1 "
        "-x MASTER_PORT=29500 -x 'A=b c' python -m foreloom train chronos2-base training.steps=5"
    )
    alone = mpirun_command(TRAIN, num_processes=2, is_root=True, python="python").text
    assert alone.startswith("mpirun --allow-run-as-root -np 2 --oversubscribe --map-by slot --bind-to none -x MASTER_A")


def test_text_of_a_slurm_job(tmp_path) -> None:
    job = SlurmJob(
        nodes=2,
        gpus=8,
        gpu_type="a100",
        cpus=12,
        memory="500G",
        time="2-00:00:00",
        partition="gpu",
        account="lab",
        array="0-3%2",
        setup=("module load cuda",),
        environment={"NCCL_SOCKET_IFNAME": "eth 0"},
        directives=("--exclusive",),
    )
    text = batch_script(
        TRAIN, job, name="base", log="/r/slurm-%j.out", folder=Path("/home/me"), code=Path("/r/code"), python="python"
    )
    assert text == (Path(__file__).parent / "job.sh").read_text()
    script = tmp_path / "job.sh"
    script.write_text(text)
    subprocess.run(["bash", "-n", script], check=True)
    for limit in ("90", "30:00", "2-00", "2-00:00:00"):
        assert SlurmJob(time=limit).time == limit
    with pytest.raises(ValueError, match=r"time: 'abc' is none that SLURM reads; say minutes \(90\)"):
        SlurmJob(time="abc")
    spaced = batch_script(TRAIN, SlurmJob(), name="my run", log="/my runs/%j.out", folder=Path("/"))
    assert "--job-name='my run'\n" in spaced and "--output='/my runs/%j.out'\n" in spaced
    brief = batch_script(["evaluate", "m"], SlurmJob(save_seconds=0), name="e", log="x", folder=Path("/"))
    assert "requeue" not in brief and "#SBATCH --ntasks-per-node=1\n" in brief


def test_what_a_profile_says_of_the_environment_is_what_ranks_of_a_job_have(tmp_path) -> None:
    install(tmp_path)
    names = ("OMP_NUM_THREADS", "MASTER_PORT", "PYTHONPATH")
    its = {"OMP_NUM_THREADS": "3", "MASTER_PORT": "1234", "PYTHONPATH": "/theirs"}
    job = SlurmJob(cpus=12, environment=its, command=f"printenv {' '.join(names)} #")
    script = tmp_path / "job.sh"
    script.write_text(batch_script(TRAIN, job, name="n", log="x", folder=tmp_path, code=Path("/code")))
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "12"}
    done = subprocess.run(["sbatch", str(script)], env=path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "1234", "/code:/theirs"], done.stderr


def test_ranks_of_a_job_have_their_cores_and_its_setup_may_read_what_is_not_set(tmp_path) -> None:
    """pytorch-lightning#18650, conda#8186. The first start of each task is told to save: it is queued again alone."""
    install(tmp_path)
    command = "bash -c 'echo $FAKE_SLURM_CORES $PROMPT $SLURM_ARRAY_TASK_ID $SLURM_RESTART_COUNT; "
    command += "exit $((SLURM_RESTART_COUNT > 0 ? 0 : 138))' #"
    job = SlurmJob(cpus=12, array="0-1", setup=('export PROMPT="in env $PS9"',), command=command)
    script = tmp_path / "job.sh"
    script.write_text(batch_script(TRAIN, job, name="n", log="x", folder=tmp_path))
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "12"}
    done = subprocess.run(["sbatch", str(script)], env=path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["12 in env 0 0", "12 in env 0 1", "12 in env 1 1"], done.stderr
    assert done.returncode == 0 and "unbound" not in done.stderr


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("gpu1 slots=8\ngpu2\n", r"hosts:2: gpu2 has no slots"),
        ("gpu1 slots=8\ngpu1 slots=2\n", r"hosts:2: gpu1 stands in line 1 too"),
        ("gpu1 slots=8\ngpu2 slot=2\n", r"hosts:2: 'gpu2 slot=2' is not of the form"),
        ("# nothing\n", "names no machine"),
        ("gpu1 slots=0\n", "hosts:1: gpu1 has no slots"),
    ],
)
def test_bad_hostfiles_are_told_by_line(tmp_path, lines, expected) -> None:
    (tmp_path / "hosts").write_text(lines)
    with pytest.raises(ValueError, match=expected):
        read_hostfile(tmp_path / "hosts")


def test_bad_machines_and_profiles(tmp_path) -> None:
    with pytest.raises(ValueError, match="machine 2, a, is machine 1 too"):
        check_hosts([Host(address="a", processes=1), Host(address="a", processes=2)])
    with pytest.raises(ValueError, match=r"2 \+ 4 processes are 6, not the 8"):
        check_hosts([Host(address="10.0.0.1", processes=2), Host(address="10.0.0.2", processes=4)], total=8)
    with pytest.raises(ValueError, match="is 127.0.0.1 here"):
        check_hosts([Host(address="localhost", processes=2), Host(address="b", processes=4)])
    for text in ("10.0.0.1", "10.0.0.1:", "10.0.0.1:a", ":3", "a b:2"):
        with pytest.raises(ValueError):
            parse_host(text)
    profile = tmp_path / "site.yaml"
    profile.write_text("hosts:\n  - {address: a, gpus: [0, 0]}\nslurm: {partitoin: gpu}\nport: 70000\n")
    with pytest.raises(ValueError) as caught:
        read_profile(profile)
    assert [f"site.yaml:{n}: " in str(caught.value) for n in (2, 3, 4)] == [True] * 3, caught.value
    assert "Did you mean partition?" in str(caught.value)
    profile.write_text("environment: {NCCL_DEBUG: WARN}\nslurm: {partition: gpu, setup: [module load cuda]}\n")
    assert read_profile(profile).slurm.partition == "gpu"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["local", "trian", "x"], "'trian' is no verb"),
        (["local", "train"], "needs a recipe"),
        (["local", "train", "quikstart"], "Did you mean quickstart"),
        (["local", "--gpus", "0,0", "train", "quickstart"], "write different numbers"),
        (["local", "--gpus", "0,1", "--processes", "3", "train", "quickstart"], "each takes one"),
        (["nodes", "train", "quickstart"], "no machine is named"),
        (["nodes", "--node", "a:0", "train", "quickstart"], "--node a:0: a needs processes or gpus, one at least"),
        (["nodes", "--node", "a:1,1", "train", "quickstart"], "--node a:1,1: gpus of a: [1, 1] are to be different"),
        (["nodes", "--node", "10.0.0.1:2", "--this", "1", "train", "quickstart"], "there are 1 machines"),
        (["slurm", "--array", "0-3", "--dry-run", "train", "quickstart"], "would train into one folder"),
        (["slurm", "--gpus", "2", "--processes", "4", "--dry-run", "train", "quickstart"], "leave processes out"),
    ],
)
def test_bad_input_gets_a_sentence(arguments, expected) -> None:
    result = CliRunner().invoke(app, ["launch", *arguments])
    assert isinstance(result.exception, ValueError) and expected in str(result.exception)
    assert "validation error" not in str(result.exception)


def test_what_this_machine_cannot_do_is_told_before_it_is_tried(monkeypatch, tmp_path) -> None:
    run = lambda *words: CliRunner().invoke(app, ["launch", *words, "train", "quickstart"])
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run("nodes", "--node", "10.0.0.1:1", "--node", "10.0.0.2:1", "--this", "0", "--port", port)
        assert f"at port {port} of this machine, where something listens" in str(refused.exception)
        found = run("mpirun", "--processes", "2", "--port", port, "--dry-run").output
        assert "MASTER_PORT=" in found and f"MASTER_PORT={port}" not in found
        (tmp_path / "hosts").write_text("127.0.0.1 slots=2\n")
        refused = run("mpirun", "--hostfile", str(tmp_path / "hosts"), "--port", port)
        assert "something listens already" in str(refused.exception)
    monkeypatch.setattr("foreloom.cli.launch._num_gpus", lambda: 2)
    refused = run("nodes", "--node", "10.0.0.1:8", "--this", "0", "--port", str(free_port()))
    assert "10.0.0.1 is to give 8 GPUs, and torch sees 2 here" in str(refused.exception)
    assert "torch sees 2 GPUs here" in str(run("local", "--processes", "3").exception)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert run("local", "--gpus", "1", "--dry-run").output.startswith("CUDA_VISIBLE_DEVICES=7 ")
    profile = tmp_path / "site.yaml"
    profile.write_text("environment: {NCCL_DEBUG: INFO}\n")
    assert "NCCL_DEBUG=INFO" in run("local", "--profile", str(profile), "--gpus", "0", "--dry-run").output
    shown = run("nodes", "--node", "10.0.0.1:1", "--node", "10.0.0.2:1", "--this", "1", "--dry-run").output
    assert "--node-rank=1" in shown and "#" not in shown


def _environment(tmp_path: Path) -> dict[str, str]:
    source = Path(__file__).resolve().parents[2] / "src"
    return {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "HOSTFILE": ""}


@pytest.mark.timeout(400)
def test_a_job_that_is_preempted_goes_on_from_the_queue(tmp_path) -> None:
    recipe, folder, programs = tmp_path / "r.yaml", tmp_path / "run", tmp_path / "bin"
    recipe.write_text(RECIPE)
    programs.mkdir()
    install(programs)
    environment = _environment(tmp_path)
    environment |= {"PATH": f"{programs}:{environment['PATH']}", PREEMPT: str(folder / "metrics.jsonl")}
    slurm = [sys.executable, "-m", "foreloom", "launch", "slurm", "--processes", "2"]
    done = subprocess.run(
        [*slurm, "train", recipe, "training.batch_size=8", "--out", folder],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((folder / "checkpoints" / "final" / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (24, 2)
    assert len(list((folder / "checkpoints").glob("step-*"))) == 2  # where it was told to leave, and the end
    assert yaml.safe_load((folder / "code" / "recipe.yaml").read_text())["training"]["batch_size"] == 8
    assert f"PYTHONPATH={folder}/code" in (folder / "job.sh").read_text()
    assert (folder / "code" / "foreloom" / "launch" / "slurm.py").is_file()


def _worker(agent: subprocess.Popen) -> int:
    """The process that a torchrun has started."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    return next(int(one) for one in children if b"foreloom" in Path(f"/proc/{one}/cmdline").read_bytes())


@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_killed_rank_and_a_lost_machine_and_the_run_goes_on(tmp_path) -> None:
    """Two torchruns are two machines. A rank is killed, then a machine goes, its torchrun and its rank together."""
    recipe, folder = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=two", "--max-restarts=5"]
    patience = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=5"
    settings = ["training.steps=120", "training.save_steps=10", "optimizer.epsilon=1e-6", "parallel.timeout_minutes=1"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", *meet]
    told = (tmp_path / "told").open("w+")
    machines = [
        subprocess.Popen(
            [*command, f"--rdzv-conf={patience},is_host={is_host}", "-m", "foreloom", "train", recipe, *settings,
             "--out", folder],
            env=_environment(tmp_path), stdout=told, stderr=told, start_new_session=True,
        )
        for is_host in (True, False)
    ]  # fmt: skip
    log = folder / "metrics.jsonl"

    def wait_for(what: str) -> None:
        deadline = time.monotonic() + 300
        while not log.is_file() or what not in log.read_text():
            assert time.monotonic() < deadline and machines[0].poll() is None, Path(told.name).read_text()
            time.sleep(0.005)

    try:
        wait_for('"step", "step": 12,')
        os.kill(_worker(machines[1]), signal.SIGKILL)
        wait_for('"step", "step": 33,')
        os.kill(lost := _worker(machines[1]), signal.SIGSTOP)  # or its end is told before the machine's
        machines[1].kill()
        os.kill(lost, signal.SIGKILL)
        assert machines[0].wait(200) == 0, Path(told.name).read_text()
    finally:
        for machine in machines:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(machine.pid, signal.SIGKILL)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len([one for one in records if one["kind"] == "resume"]) >= 2
    manifest = json.loads((folder / "checkpoints" / "final" / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (120, 1)
    run.train(recipe, settings, out=tmp_path / "whole")
    weights = lambda of: load_file(of / "checkpoints" / "final" / "hf" / "model.safetensors")
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(folder)[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("mpirun"), reason="Open MPI is not installed")
def test_open_mpi_starts_ranks(tmp_path) -> None:
    recipe, hosts = tmp_path / "r.yaml", tmp_path / "hosts"
    recipe.write_text(RECIPE)
    hosts.write_text("127.0.0.1 slots=2\n")
    command = [sys.executable, "-m", "foreloom", "launch", "mpirun", "--hostfile", hosts]
    done = subprocess.run(
        [*command, "--port", "29777", "train", recipe, "training.steps=2", "--out", tmp_path / "run"],
        env=_environment(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "run" / "checkpoints" / "final" / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (2, 2)
