import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from foreloom.checkpoint.claim import claim
from foreloom.distributed.process import (
    Launch,
    choose_device,
    first_host,
    is_restart,
    name_of_start,
    prepare,
    read_launch,
)

MASTER = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launch("single process")),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"} | MASTER, Launch("torchrun", 3, 8, 1, "10.0.0.1", 1234)),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, Launch("torchrun")),
        (
            {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "2",
             "OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
            Launch("OpenMPI", 2, 4, 2),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"} | MASTER, Launch("PMI", 1, 2, 1, "10.0.0.1", 1234)),
        # As mpiexec of MPICH 4.0 sets them, and Accelerate, which has torchrun start its processes.
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}, Launch("PMI", 1, 2, 1)),
        (
            {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "true", "RANK": "1", "WORLD_SIZE": "2",
             "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"} | MASTER,
            Launch("torchrun", 1, 2, 1, "10.0.0.1", 1234),
        ),
        (
            {"SLURM_PROCID": "9", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "72042",
             "SLURM_STEP_NODELIST": "gpu[07-08]"},
            Launch("SLURM", 9, 16, 1, "gpu07", 29542),
        ),
        # A batch script's shell has the job's variables, but is no task of a step.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_LOCALID": "0"}, Launch("single process")),
        # mpirun starts its daemons as SLURM tasks: OpenMPI's word counts.
        (
            {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "OMPI_COMM_WORLD_RANK": "5",
             "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1"} | MASTER,
            Launch("OpenMPI", 5, 8, 1, "10.0.0.1", 1234),
        ),
    ],
)  # fmt: skip
def test_launchers(environment: dict[str, str], expected: Launch) -> None:
    assert read_launch(environment) == expected


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"RANK": "0"}, "only one is set"),
        ({"RANK": "4", "WORLD_SIZE": "4"} | MASTER, "no rank of WORLD_SIZE=4|is not a rank"),
        ({"RANK": "zero", "WORLD_SIZE": "4"}, "not a whole number"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "MASTER_ADDR is not set"),
    ],
)
def test_contradictions_are_told(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_launch(environment)


def test_a_rank_that_counts_machines_is_explained() -> None:
    """As the old Time-MoE launcher and Kubernetes mean RANK and WORLD_SIZE."""
    launch = read_launch({"RANK": "1", "WORLD_SIZE": "2"} | MASTER)
    assert not launch.is_local_told and choose_device("auto", launch, has_mps=False, num_cuda=1) == "cuda:0"
    assert choose_device("cpu", launch, has_mps=False, num_cuda=8) == "cpu"
    with pytest.raises(ValueError, match=r"the 8 GPUs .* --nnodes=2 --node-rank=1 --nproc-per-node=8 --master-"):
        choose_device("auto", launch, has_mps=False, num_cuda=8)


def test_ranks_of_one_start_agree_on_a_name_whatever_an_earlier_one_has_left() -> None:
    store, names = dist.HashStore(), []
    for world_size in (3, 2, 2, 4, 1):
        with ThreadPoolExecutor(world_size) as ranks:
            of_ranks = list(
                ranks.map(lambda rank, of=world_size: name_of_start(store, rank, of, 20), range(world_size))
            )
        assert len(set(of_ranks)) == 1
        names.append(of_ranks[0])
    assert len(set(names)) == 5
    for alone, absent in ((0, "a rank"), (1, "rank 0")):
        with pytest.raises(dist.DistStoreError, match=f"{absent} has not come"):
            name_of_start(store, alone, 2, 0.2)


def test_ranks_that_never_met_wait_as_long_as_the_recipe_says(monkeypatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    its = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in its.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(dist.DistError):
        prepare(lambda: {"timeout_minutes": 0.02}, lambda read: read["timeout_minutes"])
    assert time.monotonic() - began < 60


def test_what_was_started_anew_goes_on(tmp_path, monkeypatch) -> None:
    assert not is_restart({"TORCHELASTIC_RESTART_COUNT": "0", "SLURM_RESTART_COUNT": ""})
    assert is_restart({"TORCHELASTIC_RESTART_COUNT": "1"}) and is_restart({"SLURM_RESTART_COUNT": "2"})
    metrics = tmp_path / "metrics.jsonl"
    for launch, is_taken in (("a", True), ("a", True), ("b", False), ("none", False)):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", launch)
        if is_taken:
            claim(tmp_path, resume=False).close()
        else:
            with pytest.raises(ValueError, match="holds an earlier run"):
                claim(tmp_path, resume=False)
        metrics.write_text("a line")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    held = claim(tmp_path, resume=False)
    threading.Timer(0.3, held.close).start()
    claim(tmp_path, resume=False).close()  # waits for the rank of the start before


def test_first_host() -> None:
    assert first_host("gpu[03-05,9],login1") == "gpu03"
    assert first_host("a1,b2") == "a1"
    assert first_host("single") == "single"


def test_device_choice() -> None:
    one, second_of_two = Launch("single process"), Launch("torchrun", 1, 2, 1)
    assert choose_device("auto", one, has_mps=True, num_cuda=4) == "mps"
    assert choose_device("auto", one, has_mps=False, num_cuda=4) == "cuda:0"
    assert choose_device("auto", one, has_mps=False, num_cuda=0) == "cpu"
    assert choose_device("auto", second_of_two, has_mps=True, num_cuda=2) == "cuda:1"
    assert choose_device("cpu", second_of_two, has_mps=True, num_cuda=2) == "cpu"
    for setting, launch, has_mps, num_cuda, complaint in (
        ("mps", second_of_two, True, 0, "serves one process"),
        ("mps", one, False, 0, "this machine has none"),
        ("cuda", one, False, 0, "no CUDA device|sees none"),
        ("auto", second_of_two, False, 1, "local rank 1 has no CUDA device"),
    ):
        with pytest.raises(ValueError, match=complaint):
            choose_device(setting, launch, has_mps=has_mps, num_cuda=num_cuda)  # type: ignore[arg-type]
