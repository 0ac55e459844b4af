"""The parity pack of chronos-forecasting 2.3.2: where it lies and how a checkpoint of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from foreloom.models import registry
from foreloom.models.chronos_t5.model import ChronosT5Model


def load(shared: Path, checkpoint: str) -> ChronosT5Model:
    folder = shared / "oracles" / "chronos" / "ckpt" / checkpoint
    return registry.recognise(folder).load(folder)


def arrays(shared: Path, name: str) -> Mapping[str, np.ndarray]:
    with np.load(shared / "oracles" / "chronos" / f"{name}.npz") as case:
        return dict(case)
