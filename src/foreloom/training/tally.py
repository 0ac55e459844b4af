"""What a model's outputs add up to: loss sum, loss count and the family's tally, from micro-batches to log lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foreloom.models.family import ModelOutput, Tally


def sum_dtype(device: torch.device) -> torch.dtype:
    """Double precision, but on MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


class OutputSums:
    """Adds up the outputs of micro-batches as one vector, so that ranks can add theirs in one collective.

    The tally's entries come in order of its names. All micro-batches of all ranks have tallies of the same names and
    shapes.
    """

    def __init__(self, device: torch.device) -> None:
        self._dtype = sum_dtype(device)
        self._shapes: dict[str, torch.Size] = {}
        self._vector: Tensor | None = None

    def add(self, output: ModelOutput) -> None:
        shapes = {name: output.tally[name].shape for name in sorted(output.tally)}
        entries = [output.objective.sum, output.objective.count, *(output.tally[name] for name in shapes)]
        vector = torch.cat([entry.detach().reshape(-1).to(self._dtype) for entry in entries])
        if self._vector is None:
            self._vector, self._shapes = vector, shapes
        else:
            assert shapes == self._shapes, f"a tally changed from {self._shapes} to {shapes}"
            self._vector += vector

    @property
    def vector(self) -> Tensor:
        """[loss sum, loss count, *tally] of the micro-batches so far, of which there must be one."""
        assert self._vector is not None
        return self._vector

    def tally(self, entries: Tensor) -> Tally:
        """The tally whose entries these are: the vector from its third place on, once ranks have added theirs."""
        parts = entries.split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


class RunningTally:
    """The tallies of the steps since the last log line, summed on the device and read when the line is due."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, tally: Tally, applied: Tensor) -> None:
        """Take in a step's tally where `applied` is 1: what a skipped step saw may not be finite."""
        for name, value in tally.items():
            value = torch.where(applied > 0, value, 0.0)
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def take(self) -> Mapping[str, np.ndarray]:
        """The sums, which begin anew. Waits for the device."""
        taken = {name: value.cpu().numpy() for name, value in self._sums.items()}
        self._sums = {}
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers. Waits for the device."""
        return {name: value.tolist() for name, value in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self._sums = {
            name: torch.tensor(value, dtype=sum_dtype(device), device=device) for name, value in state.items()
        }
