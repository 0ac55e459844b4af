"""Trained weights for benchmarks: random ones make none of the subnormal floats that slow a trained model down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import foreloom
from foreloom.checkpoint.locate import find_model_folder


def trained_folder(work_dir: Path, *, quick: bool, overrides: Sequence[str] = ()) -> Path:
    """The Hugging Face folder of a quickstart of other sizes (`overrides`), trained here; `quick`: for 20 steps."""
    settings = [*overrides, *(["training.steps=20"] if quick else [])]
    run_dir = work_dir / "run"
    foreloom.train("quickstart", settings, out=run_dir)
    return find_model_folder(run_dir)
