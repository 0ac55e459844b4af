"""The state of a run: tensors for the checkpoint, what a stream has left behind, and how far the run has come.

Axes: R rows of a micro-batch, L lanes of a recurrent run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)

from foreloom.distributed.process import Process
from foreloom.distributed.reduce import sum_over_ranks
from foreloom.models.family import Carry


class Stateful(Protocol):
    """A part of a run whose state goes into every checkpoint: plain JSON values, equal on all ranks."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class RunProgress:
    """How far a run has come, earlier sessions included. Equal on every rank."""

    step: int = 0
    num_rows: int = 0
    """Seen."""
    loss_terms: int = 0
    """In the loss of all global batches up to the newest step that was read from the device: tokens, or time steps."""
    flops: float = 0.0
    seconds: float = 0.0
    num_skipped_steps: int = 0
    num_skipped_in_a_row: int = 0
    """The newest steps, back to one that was not skipped."""
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

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(RunProgress(**state)))


class LaneCarry:
    """The recurrent state of a run: row j of every global batch goes on where row j of the one before ended.

    `initial` is what each lane begins with, (L, ...) a tensor. Every rank holds all lanes and moves those whose rows it
    is given; as the lanes' rows all have one length, a lane stays on its rank.
    """

    def __init__(self, initial: Carry, process: Process) -> None:
        self._state = {name: value.clone() for name, value in initial.items()}
        self._initial = initial
        self._process = process
        self._noted: list[tuple[Tensor, Carry]] = []
        num_lanes = len(next(iter(initial.values())))
        self._is_mine = torch.zeros(num_lanes, dtype=torch.bool, device=process.device)

    def rows(self, lane_R: np.ndarray) -> dict[str, Tensor]:
        """The state of these lanes, detached; a lane of -1 is none and begins anew."""
        place_R = self._places(np.maximum(lane_R, 0))
        is_lane_R = self._places(lane_R) >= 0
        return {
            name: torch.where(is_lane_R.view(-1, *[1] * (value.ndim - 1)), value[place_R], self._initial[name][place_R])
            for name, value in self._state.items()
        }

    def note(self, lane_R: np.ndarray, carry: Carry) -> None:
        """Where a micro-batch of these lanes has ended."""
        kept = np.flatnonzero(lane_R >= 0)
        kept_R = self._places(kept)
        self._noted.append(
            (self._places(lane_R[kept]), {name: value.detach()[kept_R] for name, value in carry.items()})
        )

    def forget(self) -> None:
        """What was noted is done again."""
        self._noted = []

    def go_on(self, applied: Tensor) -> None:
        """Take over what was noted where `applied` is 1; a skipped step's state may not be finite, and is dropped."""
        for lane_R, carry in self._noted:
            for name, value in carry.items():
                before = self._state[name][lane_R]
                self._state[name][lane_R] = torch.where(applied > 0, value.to(before.dtype), before)
            self._is_mine[lane_R] = True
        self._noted = []

    def tensors(self) -> dict[str, Tensor]:
        """All lanes, each as the rank that moves it has it. Collective; equal on every rank."""
        if self._process.world_size > 1:
            num_owners = sum_over_ranks(self._is_mine.to(torch.int32), self._process)
            for name, value in self._state.items():
                shape = (-1, *[1] * (value.ndim - 1))
                of_owners = sum_over_ranks(torch.where(self._is_mine.view(shape), value, 0.0), self._process)
                # Before the first step after a start nobody has moved a lane, and all have the same.
                self._state[name] = torch.where(num_owners.view(shape) > 0, of_owners, value)
        return self._state

    def _places(self, lane_R: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(lane_R, dtype=np.int64)).to(self._process.device, non_blocking=True)


_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
"""Parameters that are trained, and buffers: what is frozen is where the run began with it."""


def read_tensors(module: nn.Module, optimizer: Any, carry: LaneCarry | None) -> dict[str, Any]:
    """Model and optimizer state of what is trained, by parameter name, sharded as the model is, named as without
    wrappers: tensors only. Collective.

    `optimizer` is an `optimizer.Optimizer`, and so one of torch's.
    """
    model_state, optimizer_state = get_state_dict(module, optimizer, options=_TRAINED)
    state: dict[str, Any] = {"model": model_state, "optimizer": {"state": optimizer_state["state"]}}
    return state | ({"carry": carry.tensors()} if carry else {})


def write_tensors(module: nn.Module, optimizer: Any, state: Mapping[str, Any]) -> None:
    """Put back what `read_tensors` gave. A carry was filled in place.

    The settings of the optimizer's groups (betas, weight decay) stay as they are: the recipe at hand has given them.
    """
    groups = get_optimizer_state_dict(module, optimizer)["param_groups"]
    optimizer_state = {"state": state["optimizer"]["state"], "param_groups": groups}
    set_state_dict(
        module, optimizer, model_state_dict=state["model"], optim_state_dict=optimizer_state, options=_TRAINED
    )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step (dropout): a function of the three, so a resumed run needs no generator's state."""
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest))
