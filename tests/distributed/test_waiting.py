"""A rank that waits says for whom, once, and where that one stands; one rank says it for all."""

from __future__ import annotations

import threading
import time

import pytest
import torch.distributed as dist

from foreloom.distributed import waiting
from foreloom.distributed.launcher import Launch
from foreloom.distributed.network import free_port
from foreloom.distributed.process import _Meeting
from foreloom.distributed.waiting import Absent, Watch


@pytest.fixture
def watches(monkeypatch):
    """Makes the watches of two ranks, which are one thread here."""
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(waiting, "BEAT_SECONDS", 0.05)
    store, made = dist.HashStore(), []

    def make(*ranks: int) -> list[Watch]:
        made.extend(Watch(store, rank, 2) for rank in ranks)
        return made

    yield make
    for watch in made:
        watch.end()
        watch.join()
    with waiting.waiting("nothing is watched any more"):
        pass


def what_is_said(capfd, seconds: float = 20) -> str:
    err, deadline = "", time.monotonic() + seconds
    while time.monotonic() < deadline and "rank" not in err:
        threading.Event().wait(0.02)
        err += capfd.readouterr().err
    threading.Event().wait(0.3)  # it is not said again
    return err + capfd.readouterr().err


def test_a_rank_that_does_not_answer(watches, capfd) -> None:
    (watch,) = watches(0)
    with waiting.waiting("a decision"):
        pass
    with waiting.waiting("the gradients of a step"):
        err = what_is_said(capfd)
    assert err.count("rank 0 has waited") == 1 and "s for rank 1 (the gradients of a step); parallel.timeout_min" in err
    assert "Rank 1 does not answer: it is stopped, or gone." in err
    assert watch.who_is_absent() == Absent((1,)), "also when the wait has failed"


def test_a_first_meeting_to_which_not_all_come(monkeypatch, capfd) -> None:
    """As in an interactive job of several tasks, where one process is started by hand."""
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.2)
    launch = Launch("SLURM", 0, 3, 0, "127.0.0.1", free_port())
    with pytest.raises(dist.DistStoreError):
        _Meeting(launch, 0.7 / 60)
    err = capfd.readouterr().err
    assert err.count("rank 0 has waited") == 1 and f"at 127.0.0.1:{launch.port} for all 3 ranks to come" in err
    assert "unset SLURM_PROCID and SLURM_STEP_NUM_TASKS" in err
    with waiting.said_if_long("{waited}"):
        pass
    threading.Event().wait(0.3)
    assert "waited" not in capfd.readouterr().err


def test_a_rank_that_is_late_and_where_it_stands(watches, capfd) -> None:
    first, second = watches(0, 1)
    for watch in (first, second):
        watch.begin("a decision")
        watch.since = None
    first.begin("the gradients of a step")
    err = what_is_said(capfd)
    assert err.count("has waited") == 1 and "rank 0 has waited" in err and "for rank 1" in err
    assert "Rank 1 stands here" in err and "in what_is_said" in err and "test_waiting.py" in err
    absent = first.who_is_absent()
    assert absent.ranks == (1,) and "who_is_absent" in absent.stands
    second.end()
    assert first.who_is_absent() == Absent(), "it has left after an error of its own"


def test_ranks_that_wait_for_one_another_say_nothing(watches, capfd) -> None:
    for watch in watches(0, 1):
        watch.begin("the gradients of a step")
    threading.Event().wait(1.0)
    assert not capfd.readouterr().err
