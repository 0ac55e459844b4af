"""TSMixup: what is mixed, how it is weighted, and what becomes of short series and missing values.

Axes: B series, K places for parts.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from foreloom.data.formats.reader import open_source
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Series
from foreloom.data.synthetic.process import Draws
from foreloom.data.synthetic.tsmixup import Mixer, MixupConfig, gamma


@pytest.fixture
def ramp(tmp_path):
    """A series of 300 steps whose value is its step from 1 on, one of 40 steps of -5, one of 10."""
    path = tmp_path / "ramp.arrow"
    series = [np.arange(1, 301.0), np.full(40, -5.0), np.ones(10)]
    write_series((Series(str(n), values[None]) for n, values in enumerate(series)), path)
    return path


def test_one_part_is_a_stretch_of_a_series_over_its_mean_magnitude(ramp):
    source = open_source(f"synth://tsmixup?sources={ramp}&max_series=1&length=20..100&num_series=400")
    found = Counter()
    for item in range(400):
        values = source.read(item).target_VT[0].astype(np.float64)
        np.testing.assert_allclose(np.abs(values).mean(), 1, rtol=1e-5)
        if values[0] < 0:
            np.testing.assert_allclose(values, -1, rtol=1e-6)
            assert 20 <= len(values) <= 40, "no longer than its series"
            found["flat"] += 1
        else:
            np.testing.assert_allclose(np.diff(values), np.diff(values)[0], rtol=1e-3)
            first = values[0] / np.diff(values)[0]
            assert 0.9 < first < 300 - len(values) + 1.1
            found["from the start" if first < 100 else "later"] += 1
    assert source.lengths.min() >= 20 and source.lengths.max() <= 100
    assert abs(found["flat"] / 400 - 0.5) < 0.1, "both long enough series alike, the short one never"
    assert min(found.values()) > 50


def test_sources_are_equally_likely_whatever_their_size(tmp_path):
    for name, value, count in (("one", 1.0, 1), ("many", -1.0, 30)):
        write_series((Series(str(n), np.full((1, 8), value)) for n in range(count)), tmp_path / f"{name}.arrow")
    source = open_source(
        f"synth://tsmixup?sources={tmp_path}/one.arrow,{tmp_path}/many.arrow&max_series=1&length=8&num_series=600"
    )
    assert abs(np.mean([source.read(item).target_VT[0, 0] for item in range(600)])) < 0.2


def test_numbers_of_parts_and_weights(ramp):
    mixer = Mixer(MixupConfig(sources=(str(ramp),)), 0, 30, 30, open_source)
    assert Counter(mixer.kinds(np.arange(3000))).keys() == {"1 part", "2 parts", "3 parts"}
    count_B = mixer.parts(Draws(0, "tsmixup", np.arange(3000))).count_B
    assert all(abs((count_B == count).mean() - 1 / 3) < 0.04 for count in (1, 2, 3))
    # Parts are 1 or -1 on average, so a mixture is 1 - 2 w, w the weight of the flat ones.
    means = np.array([np.mean(values) for values in mixer.make(np.arange(3000), np.full(3000, 30))])
    assert means.min() >= -1 - 1e-9 and means.max() <= 1 + 1e-9
    assert abs(means.mean()) < 0.05


@pytest.mark.parametrize("shape", [0.4, 1.0, 1.5, 7.0])
def test_gamma_numbers(shape):
    numbers = gamma(Draws(0, "x", np.arange(40_000)), "g", 2, shape=shape)
    assert numbers.shape == (40_000, 2) and (numbers > 0).all()
    assert abs(numbers.mean() / shape - 1) < 0.02
    assert abs(numbers.var() / shape - 1) < 0.05
    third = ((numbers - shape) ** 3).mean()
    assert abs(third / (2 * shape) - 1) < 0.15
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.02


def test_missing_values_stay_missing_and_do_not_count(tmp_path):
    values = np.array([1.0, np.nan, 3.0, 4.0])
    write_series([Series("a", values[None])], tmp_path / "a.arrow")
    write_series([Series("b", np.array([[2.0, 2.0, np.nan, 2.0]]))], tmp_path / "b.arrow")
    source = open_source(f"synth://tsmixup?sources={tmp_path}/a.arrow,{tmp_path}/b.arrow&length=4&num_series=80")
    masks = {tuple(np.isnan(source.read(item).target_VT[0])) for item in range(80)}
    assert masks == {(False, True, False, False), (False, False, True, False), (False, True, True, False)}
    alone = open_source(f"synth://tsmixup?sources={tmp_path}/a.arrow&max_series=1&length=4&num_series=1")
    np.testing.assert_allclose(alone.read(0).target_VT[0], values / (8 / 3), rtol=1e-6)


def test_zeros_and_all_missing(tmp_path):
    write_series([Series("a", np.zeros((1, 9)))], tmp_path / "zeros.arrow")
    write_series([Series("a", np.full((1, 9), np.nan))], tmp_path / "nothing.arrow")
    zeros = open_source(f"synth://tsmixup?sources={tmp_path}/zeros.arrow&length=9&num_series=1").read(0)
    assert (zeros.target_VT == 0).all()
    nothing = open_source(f"synth://tsmixup?sources={tmp_path}/nothing.arrow&length=9&num_series=1").read(0)
    assert np.isnan(nothing.target_VT).all()


def test_one_variate_of_several_without_covariates(tmp_path):
    rows = np.array([[1.0] * 12, [-1.0] * 12])
    write_series([Series("a", rows, past={"x": np.full(12, 99.0)})], tmp_path / "two.arrow")
    source = open_source(f"synth://tsmixup?sources={tmp_path}/two.arrow&max_series=1&length=12&num_series=60")
    assert {float(source.read(item).target_VT[0, 0]) for item in range(60)} == {1.0, -1.0}


def test_a_source_without_a_long_enough_series(ramp):
    with pytest.raises(
        ValueError, match=r"^synth://tsmixup\?.*ramp.arrow: no series has the 400 steps .*longest has 300"
    ):
        open_source(f"synth://tsmixup?sources={ramp}&length=400")


def test_a_fingerprint_is_of_the_data_not_of_their_place(ramp, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "ramp.arrow"
    copy.write_bytes(ramp.read_bytes())

    def fingerprint(**settings) -> str:
        query = "&".join(f"{name}={value}" for name, value in settings.items())
        return open_source(f"synth://tsmixup?length=9&num_series=5&{query}").fingerprint

    assert fingerprint(sources=ramp) == fingerprint(sources=copy)
    others = [
        fingerprint(sources=ramp, alpha=2),
        fingerprint(sources=ramp, max_series=2),
        fingerprint(sources="kernel"),
    ]
    assert len({fingerprint(sources=ramp), *others}) == 4
