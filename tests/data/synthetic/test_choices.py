"""Settings of processes: lists as sequences or as words between commas, limits, what has no effect."""

from __future__ import annotations

import pytest

from foreloom.data.synthetic.chaos import ChaosConfig
from foreloom.data.synthetic.count import CountConfig
from foreloom.data.synthetic.regimes import RegimesConfig


def test_a_list_may_be_written_with_commas():
    assert ChaosConfig(systems="lorenz,henon").systems == ("lorenz", "henon")
    assert RegimesConfig(periods="24,168") == RegimesConfig(periods=[24, 168])
    assert CountConfig(steps_per_day="24").steps_per_day == (24,)


@pytest.mark.parametrize("periods", ["24,day", "24,,168", "", "1"])
def test_words_that_are_no_periods_are_refused(periods):
    with pytest.raises(ValueError, match="periods"):
        RegimesConfig(periods=periods)
