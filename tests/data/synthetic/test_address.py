"""Addresses of synthetic data: read, written, moved; and wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreloom.data.synthetic.address import (
    is_synthetic,
    locate,
    missing_data,
    read_address,
    short_name,
    write_address,
)


def test_defaults_and_settings():
    address = read_address("synth://kernel")
    assert (address.process.name, address.collection.length_range) == ("kernel", (1024, 1024))
    assert (address.collection.num_series, address.collection.seed) == (2**20, 0)
    assert address.settings.max_kernels == 5
    assert read_address("synth://tsmixup").collection.length_range == (128, 2048)
    address = read_address("synth://kernel?num_series=7&length=3..9&seed=2&max_kernels=1")
    assert (address.collection.num_series, address.collection.length_range) == (7, (3, 9))
    assert (address.collection.seed, address.settings.max_kernels) == (2, 1)


def test_an_address_survives_path():
    text = "synth://tsmixup?sources=/data/a.arrow,kernel&length=64"
    assert is_synthetic(Path(text)) and is_synthetic(text)
    assert not is_synthetic("synth") and not is_synthetic("/data/synth://kernel")
    assert read_address(Path(text)).text == text


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("synth://kernl", "there is no synthetic process 'kernl'"),
        ("synth://", "there is no synthetic process ''"),
        ("synth://kernel?lenght=5", "lenght: unknown setting. Did you mean length?"),
        ("synth://kernel?colour=5", "colour: unknown setting. Known: num_series, length, seed, max_kernels."),
        ("synth://kernel?max_kernels=0", "max_kernels: expected a number of at least 1, got '0'."),
        ("synth://kernel?max_kernels=many", "max_kernels: expected a whole number, got 'many'."),
        ("synth://kernel?num_series=0", "num_series: expected a number of at least 1, got '0'."),
        ("synth://kernel?seed=-1", "seed: expected a number of at least 0, got '-1'."),
        ("synth://kernel?length=0", "length: expected a number of steps, or a range such as 128..2048, got '0'."),
        ("synth://kernel?length=9..3", "length: expected a number of steps"),
        ("synth://kernel?length=ten", "length: expected a number of steps"),
        ("synth://kernel?length=5&length=6", "length is given twice."),
        ("synth://kernel?length", "'length' is no setting: write name=value."),
        ("synth://tsmixup?alpha=0", "alpha: expected a number above 0.0, got '0'."),
        ("synth://tsmixup?sources=", "sources: expected a list of at least 1"),
    ],
)
def test_a_wrong_address(address, sentence):
    with pytest.raises(ValueError) as caught:
        read_address(address)
    assert str(caught.value).startswith(f"{address}: ") and sentence in str(caught.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"colour: unknown.*num_series: expected.*max_kernels: expected"):
        read_address("synth://kernel?max_kernels=a&num_series=b&colour=c")


def test_paths_in_an_address_are_found_like_others(tmp_path):
    (tmp_path / "a, b.arrow").touch()
    text = write_address("tsmixup", {"sources": ["a, b.arrow", "kernel", "nowhere.csv"], "seed": 3})
    assert text == "synth://tsmixup?sources=a%2C b.arrow,kernel,nowhere.csv&seed=3"

    def find(one: str) -> Path | None:
        return tmp_path / one if (tmp_path / one).exists() else None

    found, missing = locate(text, find)
    assert missing == ["nowhere.csv"]
    assert read_address(found).settings.sources == (str(tmp_path / "a, b.arrow"), "kernel", "nowhere.csv")
    assert locate("a, b.arrow", find) == (str(tmp_path / "a, b.arrow"), [])
    assert locate("synth:/kernel?seed=1", find) == ("synth://kernel?seed=1", [])


def test_an_address_in_an_address(tmp_path):
    inner = write_address("tsmixup", {"sources": ["x.arrow", "kernel"], "length": "99"})
    outer = write_address("tsmixup", {"sources": [inner, "y.arrow"]})
    assert read_address(outer).settings.sources == (inner, "y.arrow")
    moved, missing = locate(outer, lambda one: Path("/data") / one)
    assert not missing
    assert read_address(moved).settings.sources == (
        "synth://tsmixup?sources=/data/x.arrow,kernel&length=99",
        "/data/y.arrow",
    )
    assert missing_data(outer) == ["x.arrow", "y.arrow"]


def test_short_names():
    assert short_name("/data/m4/hourly.arrow") == "hourly.arrow"
    assert short_name("synth://tsmixup?sources=/data/a.arrow,b/c.csv&seed=1") == "tsmixup?sources=a.arrow,c.csv&seed=1"


def test_a_billion_lengths_are_refused():
    with pytest.raises(ValueError, match=r"num_series 1,000,000,000 with lengths of their own: at most 67,108,864"):
        read_address("synth://kernel?num_series=1000000000&length=100..200")
