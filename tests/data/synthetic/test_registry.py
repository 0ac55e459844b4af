"""The registry: every process keeps its contract, and is imported only when asked for."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from foreloom.data.formats.reader import open_source
from foreloom.data.synthetic import registry


@pytest.mark.parametrize("name", registry.names())
def test_a_process_keeps_its_contract(name):
    process = registry.get(name)
    assert process.name == name
    assert process.sentence.endswith(".")
    settings = process.settings()
    assert dataclasses.is_dataclass(settings)
    for field in dataclasses.fields(process.settings):
        assert process.settings.__pydantic_fields__[field.name].description, f"{name}.{field.name} has no docstring"

    source = open_source(f"synth://{name}?length=130..200&num_series=50")
    series = [source.read(item) for item in range(40)]
    source.prepare(np.arange(40)[::-1])
    for item, one in enumerate(series):
        again = source.read(item)
        np.testing.assert_array_equal(again.target_VT, one.target_VT)
        assert again.static == one.static
        assert one.target_VT.shape == (1, source.lengths[item]) and one.target_VT.dtype == np.float32
        assert np.isfinite(one.target_VT).all()
    assert np.unique([one.target_VT[0, :130].tobytes() for one in series]).size == 40
    other = open_source(f"synth://{name}?length=130..200&num_series=50&seed=1")
    assert not any(
        np.array_equal(other.read(item).target_VT[0, :130], series[item].target_VT[0, :130]) for item in range(40)
    )


def test_an_unknown_process():
    with pytest.raises(ValueError, match="no synthetic process 'kernal'; foreloom has .*Did you mean kernel"):
        registry.get("kernal")


def test_a_process_is_imported_when_asked_for():
    script = (
        "import sys; from foreloom.data.formats.reader import open_source; open_source('synth://patterns');"
        "print(sorted(m for m in sys.modules if m.endswith(('.kernel', '.patterns'))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['foreloom.data.synthetic.patterns']\n"
