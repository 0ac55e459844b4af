import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from foreloom.checkpoint.claim import claim
from foreloom.distributed.launcher import is_restart
from foreloom.distributed.process import name_of_start, prepare


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
