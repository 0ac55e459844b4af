"""The state of a run: tensors for the checkpoint, and the few numbers that say how far it has come."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict


@dataclass
class Progress:
    """How far a run has come, earlier sessions included. Equal on every rank."""

    step: int = 0
    samples: int = 0
    """Rows seen."""
    flops: float = 0.0
    seconds: float = 0.0
    num_skipped_steps: int = 0
    num_non_finite_steps: int = 0
    """Of the skipped ones, those whose loss or gradient was not finite."""
    num_clipped_steps: int = 0
    """Steps whose gradient norm came within 1 % of the limit, or above it."""
    loss: float = math.nan
    """Mean over the steps up to the newest log line; NaN where none of them changed anything."""
    unlogged_loss: float = 0.0
    """Sum over the steps since, so that a resumed run logs what it would have logged."""
    num_unlogged: int = 0
    """Steps in that sum; skipped ones are not."""
    best_loss: float = math.inf
    """The lowest logged."""

    def note_loss(self, loss: float) -> None:
        """Take in the loss of a step that changed something."""
        self.unlogged_loss += loss
        self.num_unlogged += 1

    def close_interval(self) -> None:
        """Put the mean of the losses since the newest log line into `loss`."""
        self.loss = self.unlogged_loss / self.num_unlogged if self.num_unlogged else math.nan
        self.unlogged_loss, self.num_unlogged = 0.0, 0
        self.best_loss = self.loss if self.loss < self.best_loss else self.best_loss


def read_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Model and optimizer state by parameter name, sharded as the model is, named as without wrappers."""
    model_state, optimizer_state = get_state_dict(module, optimizer)
    return {"model": model_state, "optimizer": optimizer_state}


def write_tensors(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back what `read_tensors` gave."""
    set_state_dict(module, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step (dropout): a function of the three, so a resumed run needs no generator's state."""
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest))
