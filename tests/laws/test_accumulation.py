"""Law: the size of micro-batches changes memory and speed, not the run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from toy_run import FAMILIES, losses, train_here, weights


@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batch_sizes_agree(tmp_path: Path, family: str) -> None:
    sizes = (0, 1, 3, 7, 12)  # a sample has up to 3 rows, which stay together
    for size in sizes:
        train_here(tmp_path / str(size), family=family, steps=3, micro_batch_size=size)
    for size in sizes[1:]:
        for step, loss in losses(tmp_path / "0").items():
            assert math.isclose(losses(tmp_path / str(size))[step], loss, rel_tol=1e-6), (size, step)
        for name, tensor in weights(tmp_path / "0").items():
            torch.testing.assert_close(weights(tmp_path / str(size))[name], tensor, rtol=1e-4, atol=2e-6)
