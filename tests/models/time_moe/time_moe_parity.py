"""The parity pack of the official Time-MoE code: where it lies and how a case is fed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from foreloom.models import registry
from foreloom.models.time_moe.model import TimeMoeForPrediction

MODELS = ("moe4", "moe8_gqa", "dense")
CASES = ("plain", "pad", "left", "right")


def oracles(shared: Path) -> Path:
    return shared / "oracles" / "time_moe"


def load(folder: Path) -> TimeMoeForPrediction:
    """By the reference protocol."""
    model = registry.recognise(folder).load(folder)
    assert isinstance(model, TimeMoeForPrediction)
    model.protocol = "reference"
    return model


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as loaded:
        return dict(loaded)


def forward_arguments(case: Mapping[str, np.ndarray], name: str) -> dict[str, torch.Tensor]:
    """Of one of the four `CASES`, under forward's own names."""
    is_padded = name in ("pad", "right")
    keys = ("pad_input_ids", "pad_labels", "pad_loss_masks") if is_padded else ("input_ids", "labels")
    arguments = {key.removeprefix("pad_"): torch.from_numpy(case[key]) for key in keys}
    mask = case.get(f"{name}_attention_mask")
    return arguments if mask is None else arguments | {"attention_mask": torch.from_numpy(mask)}


def assert_close(ours: torch.Tensor | np.ndarray, reference: np.ndarray) -> None:
    """The pack's tolerance for outputs."""
    np.testing.assert_allclose(np.asarray(ours), reference, rtol=1e-4, atol=1e-5)
