"""Season lengths equal GluonTS's `get_seasonality` in every spelling pandas has had."""

import pytest

from foreloom.evaluation.tasks import season_length

# gluonts 0.17.0 on pandas 2.3.3
GLUONTS = {
    "s": 3600, "30s": 120, "7s": 1, "S": 3600, "min": 1440, "5min": 288, "10min": 144, "15min": 96, "30min": 48,
    "45min": 32, "60min": 24, "90min": 16, "T": 1440, "15T": 96, "h": 24, "H": 24, "2h": 12, "6h": 4, "5h": 1,
    "24h": 1, "D": 1, "2D": 1, "7D": 1, "W": 1, "W-SUN": 1, "W-MON": 1, "2W": 1, "M": 12, "ME": 12, "MS": 12,
    "2MS": 6, "3ME": 4, "5MS": 1, "B": 5, "5B": 1, "2B": 1, "Q": 4, "QE": 4, "QS": 4, "Q-DEC": 4, "QE-DEC": 4,
    "QS-OCT": 4, "QS-JAN": 4, "2QS": 2, "Y": 1, "YE": 1, "YS": 1, "A": 1, "AS": 1, "YS-JAN": 1, "YE-DEC": 1,
    "A-DEC": 1, "AS-JAN": 1, "BME": 1, "BMS": 1, "BQE": 1, "BQS": 1, "BYE": 1, "BYS": 1, "SME": 1, "SMS": 1, "ms": 1,
    "us": 1, "ns": 1, "L": 1, "U": 1, "N": 1, "bh": 1, "C": 1, "1h30min": 16, "1D12h": 1, "BM": 1, "BQ": 1, "10YS": 1,
}  # fmt: skip


@pytest.mark.parametrize(("freq", "expected"), GLUONTS.items())
def test_equals_gluonts(freq, expected):
    assert season_length(freq) == expected


def test_agrees_with_the_installed_gluonts():
    seasonality = pytest.importorskip("gluonts.time_feature")
    to_offset = pytest.importorskip("pandas").tseries.frequencies.to_offset
    for freq in GLUONTS:
        try:
            to_offset(freq)
        except ValueError:
            continue  # an old spelling that this pandas has dropped
        assert season_length(freq) == seasonality.get_seasonality(freq), freq


@pytest.mark.parametrize("freq", ["", "hourly", "30 min", "D-", "1M2D", "-1h"])
def test_what_is_no_frequency_is_refused(freq):
    with pytest.raises(ValueError, match="is not a frequency"):
        season_length(freq)


def test_a_slip_gets_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean min"):
        season_length("30mins")
