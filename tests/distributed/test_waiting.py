"""A rank that waits says for whom, once, and one rank says it for all."""

from __future__ import annotations

import time

import pytest
import torch.distributed as dist

from foreloom.distributed import waiting
from foreloom.distributed.waiting import Watch


@pytest.mark.parametrize(("here", "said"), [((0,), "rank 0 has waited"), ((0, 1), ""), ((1,), "")])
def test_it_is_said_after_a_while_whom_this_rank_waits_for(
    monkeypatch, capfd, here: tuple[int, ...], said: str
) -> None:
    """One of two ranks, which waits alone, beside the other, or with the other there already."""
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.3)
    store = dist.HashStore()
    watch = Watch(store, here[0], 2)
    for rank in here[1:]:
        store.set(f"waits/2/{rank}", "")
    if here == (1,):
        store.set("waits/2/0", "")
    err, deadline = "", time.monotonic() + (20 if said else 0.8)
    with waiting.waiting("a decision"):
        pass
    with waiting.waiting("the gradients of a step"):
        while time.monotonic() < deadline and not err:
            time.sleep(0.02)
            err = capfd.readouterr().err
        time.sleep(0.2)  # it is not said again
    watch.end()
    watch.join()
    err += capfd.readouterr().err
    if said:
        assert err.count(said) == 1 and "s for rank 1 (the gradients of a step); parallel.timeout_minutes" in err
    else:
        assert not err
    with waiting.waiting("nothing is watched any more"):
        pass
