"""The writer where it cannot go on."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

from foreloom.data.formats import writer
from foreloom.data.source import Series


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_a_file_given_up_is_closed(tmp_path, monkeypatch, form) -> None:
    monkeypatch.setattr(writer, "_BATCH_SERIES", 1)
    ignored: list = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    series = [Series("a", np.zeros((1, 3))), Series("late", np.zeros((1, 3)), past={"x": np.zeros(3)})]
    with pytest.raises(ValueError, match="series 'late' has the past covariate 'x'"):
        writer.write_series(series, tmp_path / "set", form)
    gc.collect()
    assert not ignored
