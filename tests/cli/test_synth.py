"""`foreloom data synth`: what it writes, draws, counts and refuses."""

from __future__ import annotations

import numpy as np
import pytest

from foreloom.cli import data as verbs
from foreloom.data.formats.reader import open_source
from foreloom.data.synthetic import registry


def synth(process, *settings, num_series=8, **options):
    verbs.synth(process, list(settings), num_series=num_series, **options)


def test_the_file_holds_what_the_address_streams(tmp_path, capsys):
    out = tmp_path / "patterns.arrow"
    synth("patterns", num_series=50, length="150", seed=3, out=out)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"wrote 50 series, 7,500 steps, to {out}",
        "the same in a recipe: synth://patterns?num_series=50&length=150&seed=3",
        "trend     13   26%",
        "seasonal  13   26%",
        "noise     12   24%",
        "mixed     12   24%",
    ]
    written, streamed = open_source(out), open_source("synth://patterns?num_series=50&length=150&seed=3")
    assert len(written) == 50
    for item in range(50):
        np.testing.assert_array_equal(written.read(item).target_VT, streamed.read(item).target_VT)
        assert written.read(item).static == streamed.read(item).static


def test_settings_and_parquet(tmp_path, capsys):
    synth("kernel", "max_kernels=1", num_series=2000, length="8", out=tmp_path / "k.parquet")
    printed = capsys.readouterr().out
    assert "synth://kernel?num_series=2000&length=8&seed=0&max_kernels=1" in printed
    assert len(open_source(tmp_path / "k.parquet")) == 2000
    kinds = {line.split()[0]: line.split()[-1] for line in printed.splitlines()[2:]}
    assert set(kinds) == {"periodic", "linear", "smooth", "noise", "constant"} and kinds["periodic"] in (
        "63%",
        "64%",
        "65%",
    )


def test_mixtures_of_a_file(tmp_path, capsys):
    synth("patterns", num_series=20, out=tmp_path / "a, b.arrow")
    synth("tsmixup", f"sources={tmp_path}/a%2C b.arrow,kernel", out=tmp_path / "m.arrow")
    assert "parts" in capsys.readouterr().out
    assert len(open_source(tmp_path / "m.arrow")) == 8


def test_pictures(tmp_path, capsys):
    synth("patterns", length="40", plot=tmp_path / "patterns.svg")
    assert (tmp_path / "patterns.svg").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"process": "patterns"}, "--out FILE.arrow writes them"),
        ({"process": "", "out": "x.arrow"}, "--out and --plot need a process"),
        ({"process": "pattern", "out": "x.arrow"}, "Did you mean patterns?"),
        ({"process": "kernel", "out": "x.csv"}, "the name should end in .arrow"),
        ({"process": "kernel", "out": "there.arrow"}, "exists already"),
        ({"process": "kernel", "out": "x.arrow", "plot": "x.gif"}, "x.gif: a picture's name must end in .svg"),
        ({"process": "synth://kernel", "out": "x.arrow"}, "synth://kernel: give the name of the process alone"),
    ],
)
def test_what_is_refused(tmp_path, arguments, sentence):
    (tmp_path / "there.arrow").touch()
    if "out" in arguments:
        arguments = arguments | {"out": tmp_path / arguments["out"]}
    with pytest.raises(ValueError, match=sentence):
        synth(**arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["there.arrow"]


def test_a_setting_without_a_value(tmp_path):
    with pytest.raises(ValueError, match=r"'max_kernels' is no setting: write name=value"):
        synth("kernel", "max_kernels", out=tmp_path / "x.arrow")


def test_what_is_an_option_is_no_setting(tmp_path):
    with pytest.raises(ValueError, match=r"num_series, seed: say it as an option: --num-series 7"):
        synth("kernel", "num_series=7", "seed=1", out=tmp_path / "x.arrow")


def test_all_processes_are_listed(capsys):
    verbs.synth()
    printed = capsys.readouterr().out
    for name in registry.names():
        assert f"{name}\n  {registry.get(name).sentence}\n" in printed
    assert "  max_kernels=5  Most kernels of a series" in printed
    assert "  sources=kernel  What is mixed" in printed
