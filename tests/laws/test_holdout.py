"""Law: the last steps that a source holds out are read neither as context nor as horizon, in any role."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.data.config import DataConfig, GroupConfig, SourceConfig
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Series
from loaders import series_loader

HOLDOUT = 11


def write(path, *, shift: float, first_changed: int) -> None:
    """Series whose steps from `first_changed` before the end on are moved, labels included."""
    rng = np.random.default_rng(0)
    series = []
    for number, length in enumerate(rng.integers(30, 90, 25)):
        target, past, known = rng.normal(size=(3, length))
        labels = rng.choice(list("ab"), length).astype(object)
        for values in (target, past, known):
            values[-first_changed:] += shift
        labels[-first_changed:] = f"late {shift}"
        covariates = {"past": {"p": past, "c": labels}, "future": {"k": known}} if number % 2 else {}
        series.append(Series(str(number), target[None], **covariates))
    write_series(series, path)


def windows(path) -> list[np.ndarray]:
    config = DataConfig(
        sources=(SourceConfig(path=str(path), holdout=HOLDOUT),),
        context_length=24,
        prediction_length=6,
        min_past=5,
        group=GroupConfig(probability=0.5, max_size=5),
    )
    loader = series_loader(config, seed=0, batch_size=300)
    batches = [batch for _, batch in zip(range(6), loader, strict=False)]
    loader.close()
    return [values for batch in batches for one in batch.micro_batches for values in (one.context_RC, one.future_RH)]


@pytest.fixture
def plain(tmp_path) -> list[np.ndarray]:
    write(tmp_path / "plain.arrow", shift=0.0, first_changed=HOLDOUT)
    return windows(tmp_path / "plain.arrow")


def test_what_is_held_out_changes_no_window(tmp_path, plain) -> None:
    write(tmp_path / "moved.arrow", shift=1e6, first_changed=HOLDOUT)
    for before, after in zip(plain, windows(tmp_path / "moved.arrow"), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_step_before_is_still_used(tmp_path, plain) -> None:
    write(tmp_path / "moved.arrow", shift=1e6, first_changed=HOLDOUT + 1)
    moved = windows(tmp_path / "moved.arrow")
    assert any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(plain, moved, strict=True))
