"""Pictures of text."""

from __future__ import annotations

import math

import pytest

from foreloom.monitoring.sparkline import bar, load_bar, sparkline


def test_sparkline_runs_from_lowest_to_highest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8]) == " ▁▂▃▄▅▆▇█"
    assert sparkline([8, 0]) == "█ "


def test_more_values_than_places_are_averaged():
    values = [float(i // 2) for i in range(40)]
    assert len(sparkline(values)) == 20
    assert sparkline(values) == sparkline([float(i) for i in range(20)])
    assert len(sparkline([float(i) for i in range(33)])) == 20


def test_values_that_cannot_be_drawn():
    assert sparkline([]) == ""
    assert sparkline([math.nan, math.inf]) == ""
    assert sparkline([0.0, math.nan, 8.0]) == " █"
    assert sparkline([3.0, 3.0]) == "▄▄"


@pytest.mark.parametrize(
    ("share", "peak", "text"),
    [(0.0, 0.0, "░░░░"), (0.5, 0.0, "██░░"), (0.25, 0.75, "█▒▒░"), (0.5, 0.25, "██░░"), (1.2, 1.5, "████")],
)
def test_bar(share, peak, text):
    assert bar(share, peak, width=4) == text


def test_load_bar_is_half_high_where_even():
    assert load_bar([5, 5, 5, 5]) == "▄▄▄▄"
    assert load_bar([30, 10, 0, 0]) == "█▄  "
    assert load_bar([1999, 1, 0, 0])[1] == "▁"  # used at all is seen
    assert load_bar([0, 0]) == "  "
