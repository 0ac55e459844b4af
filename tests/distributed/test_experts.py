"""Experts shared between ranks: as on one device, and what cannot be shared is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from foreloom.distributed.experts import SharedExperts, check_share
from foreloom.distributed.mesh import MeshShape
from foreloom.distributed.process import Process
from foreloom.models.common.moe import Experts
from foreloom.models.registry import get
from toy_run import launch


@pytest.mark.parametrize("world_size", [2, 4])
def test_loss_and_gradients_are_those_of_one_device(world_size: int) -> None:
    launch(world_size, [], script=str(Path(__file__).with_name("shared_experts.py")))


def test_what_cannot_be_shared_is_told() -> None:
    with pytest.raises(ValueError, match="parallel.ep is 4, which does not divide the 6 experts; set it to 1, 2, 3, 6"):
        check_share(Experts(6, 4, 4), 4)
    adapted = Experts(6, 4, 4)
    adapted.adapter = nn.Linear(2, 2)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="adapters of experts cannot be shared"):
        check_share(adapted, 2)
    process = Process(0, 2, 0, torch.device("cpu"))
    with pytest.raises(ValueError, match="parallel.ep is 2, and this model has no experts that ranks could share"):
        SharedExperts(nn.Linear(2, 2), get("chronos2").sharding, MeshShape("ddp", 2, 1, 2), process)
