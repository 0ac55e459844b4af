"""Which launcher started a process, and which device it gets: told by the environment alone."""

import pytest

from foreloom.distributed.launcher import Launch, choose_device, first_host, read_launch

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
