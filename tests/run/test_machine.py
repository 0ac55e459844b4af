"""What of a machine a run may use, told from made-up machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreloom.run.machine import (
    Machine,
    choose_threads,
    find_machine,
    parse_bytes,
    ranks_on_machine,
    why_shared,
)

GB = 2**30


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


MEMORY = "MemTotal:       64000000 kB\nMemFree:  1 kB\nMemAvailable:   32000000 kB"


@pytest.mark.parametrize(
    ("files", "cores", "limit", "free"),
    [
        ({}, None, 64_000_000 * 1024, 32_000_000 * 1024),
        (
            {
                "proc/self/cgroup": "0::/job/step",
                "sys/fs/cgroup/job/cpu.max": "250000 100000",
                "sys/fs/cgroup/job/step/cpu.max": "max 100000",
                "sys/fs/cgroup/job/step/memory.max": str(8 * GB),
                "sys/fs/cgroup/job/step/memory.current": str(3 * GB),
            },
            2,
            8 * GB,
            5 * GB,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a",
                "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": str(2**63 - 4096),
                "sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes": str(GB),
            },
            1,
            64_000_000 * 1024,
            32_000_000 * 1024,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/docker/a\n4:memory:/docker/a",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GB),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(5 * GB),
            },
            None,
            4 * GB,
            0,
        ),
    ],
)
def test_limits_of_cgroups_of_both_versions(
    tmp_path: Path, files: dict[str, str], cores: int | None, limit: int, free: int
) -> None:
    machine = find_machine({}, written(tmp_path, {"proc/meminfo": MEMORY} | files))
    assert machine.limits.get("cgroup") == cores
    assert (machine.memory_bytes, machine.free_bytes) == (limit, free)
    assert machine.cores_allowed <= (cores or machine.num_cores)
    assert find_machine({"SLURM_CPUS_PER_TASK": "1"}, tmp_path).cores_allowed == 1


@pytest.mark.parametrize(
    ("environment", "hostname", "cores", "memory", "reason"),
    [
        ({}, "laptop", 8, 16 * GB, ""),
        ({"SLURM_JOB_ID": "7"}, "laptop", 8, 16 * GB, "SLURM"),
        ({"PBS_JOBID": "7"}, "laptop", 8, 16 * GB, "PBS"),
        ({"SGE_ROOT": "/sge"}, "laptop", 8, 16 * GB, ""),
        ({"SGE_ROOT": "/sge", "JOB_ID": "7"}, "laptop", 8, 16 * GB, "SGE"),
        ({}, "Login-2.site", 8, 16 * GB, "'login'"),
        ({}, "gpu17", 8, 16 * GB, "'gpu'"),
        ({}, "laptop", 64, 16 * GB, "64 cores"),
        ({}, "laptop", 8, 128 * GB, "128 GB"),
        ({}, "laptop", 8, None, ""),
    ],
)
def test_a_shared_machine_is_told_with_its_reason(
    environment: dict[str, str], hostname: str, cores: int, memory: int | None, reason: str
) -> None:
    found = why_shared(environment, hostname, cores, memory)
    assert reason in found and bool(found) == bool(reason)


def machine(**its: Any) -> Machine:
    usual = {"hostname": "laptop", "num_cores": 32, "limits": {}, "memory_bytes": None, "free_bytes": None}
    return Machine(**(usual | {"shared_because": "", "is_allotted": False} | its))


def test_threads_follow_from_what_is_allowed_and_who_shares_it() -> None:
    threads = lambda *its, **more: choose_threads(*its, **more).num_threads
    assert threads(machine(), {}) == 32
    assert threads(machine(limits={"affinity": 16, "cgroup": 2}), {}) == 2
    assert threads(machine(limits={"cgroup": 6}), {}, ranks_here=4) == 1
    assert threads(machine(), {"OMP_NUM_THREADS": "5"}) == 5
    of_torchrun = {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none"}
    assert threads(machine(), of_torchrun, ranks_here=4) == 8  # torchrun holds every rank down to one
    assert threads(machine(), of_torchrun) == 1
    assert threads(machine(hostname="login1"), {}) == 6
    assert threads(machine(hostname="login1", limits={"SLURM_CPUS_PER_TASK": 20}, is_allotted=True), {}) == 20
    for its in ({}, {"OMP_NUM_THREADS": "32"}, of_torchrun):  # being asked to hold back always wins
        forced = choose_threads(machine(), its, force_conservative_cpu=True)
        assert forced.num_threads == 6 and "force_conservative_cpu" in forced.reason
    assert threads(machine(num_cores=2), {}, force_conservative_cpu=True) == 1
    assert ranks_on_machine({"LOCAL_WORLD_SIZE": "4"}, 8) == 4
    assert ranks_on_machine({"LOCAL_WORLD_SIZE": "4"}, 1) == ranks_on_machine({}, 1) == 1


def test_bytes_are_read_with_their_unit() -> None:
    assert parse_bytes("80GB") == parse_bytes(" 80 GiB ") == parse_bytes("80g") == 80 * GB
    assert parse_bytes("1.5 TB") == 1.5 * 2**40 and parse_bytes("512MB") == 512 * 2**20
    for text in ("80", "GB", "0GB", "-1GB", "80 bytes", "eightyGB"):
        with pytest.raises(ValueError, match="write a number with its unit"):
            parse_bytes(text)
