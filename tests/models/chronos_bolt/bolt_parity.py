"""The parity pack of chronos-forecasting 2.3.2: where it lies, and the gate that holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from foreloom.models import registry
from foreloom.models.chronos_bolt.model import ChronosBoltModel

CHECKPOINT = "dummy-chronos-bolt-model"


def folder_of(shared: Path) -> Path:
    return shared / "oracles" / "chronos" / "ckpt" / CHECKPOINT


def load(shared: Path) -> ChronosBoltModel:
    return registry.recognise(folder_of(shared)).load(folder_of(shared))


def arrays(shared: Path) -> Mapping[str, np.ndarray]:
    with np.load(shared / "oracles" / "chronos" / "bolt_dummy.npz") as case:
        return dict(case)


def assert_quantiles(ours: np.ndarray, reference: np.ndarray, scale: np.ndarray | float) -> None:
    """|ours - reference| <= 1e-4 * (scale + |reference|), the pack's gate."""
    assert ours.shape == reference.shape
    worst = np.max(np.abs(ours - reference) / (scale + np.abs(reference)))
    assert worst <= 1e-4, f"worst relative error {worst:.1e}"
