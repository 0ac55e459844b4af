"""Trained weights for benchmarks: random ones make none of the subnormal floats that slow a trained model down."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import foreloom
from foreloom.checkpoint.locate import find_model_folder

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "data"


@contextmanager
def trained_folder(
    given: Path | None, recipe: str = "quickstart", *, quick: bool, overrides: Sequence[str] = ()
) -> Generator[Path]:
    """The Hugging Face folder of the run or model `given`, or else of `recipe` with `overrides`, trained here and gone
    afterwards; `quick`: for 20 steps."""
    if given is not None:
        yield find_model_folder(given)
        return
    settings = ["training.device=cpu", *overrides, *(["training.steps=20"] if quick else [])]
    with tempfile.TemporaryDirectory() as temporary:
        run_dir = Path(temporary) / "run"
        foreloom.train(recipe, settings, out=run_dir)
        yield find_model_folder(run_dir)
