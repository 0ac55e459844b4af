"""The parity pack of chronos-forecasting 2.3.2: where it lies, how a case is fed, what gates hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from foreloom.models import registry
from foreloom.models.chronos2.model import Chronos2Model


def load(shared: Path, checkpoint: str) -> Chronos2Model:
    folder = shared / "oracles" / "chronos" / "ckpt" / checkpoint
    return registry.recognise(folder).load(folder)


def arrays(shared: Path, name: str) -> Mapping[str, np.ndarray]:
    with np.load(shared / "oracles" / "chronos" / f"{name}.npz") as case:
        return dict(case)


def forward_arguments(case: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor | int]:
    """The `in_` arrays of a forward case under forward's own names."""
    arguments = {name[3:]: torch.from_numpy(array) for name, array in case.items() if name.startswith("in_")}
    return arguments | {"num_output_patches": int(case["in_num_output_patches"])}


def assert_quantiles(ours: np.ndarray, reference: np.ndarray, scale: np.ndarray | float) -> None:
    """|ours - reference| <= 1e-4 * (scale + |reference|), the pack's gate."""
    assert ours.shape == reference.shape
    worst = np.max(np.abs(ours - reference) / (scale + np.abs(reference)))
    assert worst <= 1e-4, f"worst relative error {worst:.1e}"
