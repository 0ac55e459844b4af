"""What rank 0 decides, or fails by, is the same on every rank."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from foreloom.checkpoint.manifest import OtherVersionError
from foreloom.config.located import RecipeError
from foreloom.distributed import reduce
from foreloom.distributed.process import Process


@pytest.mark.parametrize(
    "error",
    [
        ValueError("one sentence"),
        OSError(28, "No space left on device", "a file"),
        RecipeError(["one problem", "another"]),
        OtherVersionError(Path("run"), "has 'more'", "9.0"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_its_kind_and_its_words_on_the_way(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    sent: list[bytes] = []

    def broadcast(answer: list, **_: object) -> None:
        if sent:
            answer[:] = pickle.loads(sent[0])
        sent.append(pickle.dumps(answer))

    def fail() -> None:
        raise error

    monkeypatch.setattr(reduce.dist, "broadcast_object_list", broadcast)
    for rank in (0, 1):
        with pytest.raises(type(error)) as caught:
            reduce.from_rank_zero(fail, Process(rank, 2, rank, torch.device("cpu")))
        assert type(caught.value) is type(error) and str(caught.value) == str(error)
        assert caught.value.raised_on_every_rank, "no rank is to be named"
