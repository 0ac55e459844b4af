"""Student's intervals against printed tables and numbers worked out by hand."""

from __future__ import annotations

import pytest

from foreloom.report.ab.intervals import estimate, paired_difference, t_quantile


@pytest.mark.parametrize(
    ("probability", "degrees_of_freedom", "printed"),
    [
        (0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 3, 3.18245), (0.975, 4, 2.77645), (0.975, 9, 2.26216),
        (0.975, 30, 2.04227), (0.975, 1000, 1.96234), (0.95, 5, 2.01505), (0.995, 2, 9.92484), (0.5, 7, 0.0),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(probability, degrees_of_freedom, printed):
    assert t_quantile(probability, degrees_of_freedom) == pytest.approx(printed, abs=5e-5)


def test_a_mean_has_the_interval_of_its_spread():
    found = estimate([4.0, 6.0, 8.0])  # deviation 2
    assert found.mean == pytest.approx(6)
    assert found.half_width == pytest.approx(4.30265 * 2 / 3**0.5, rel=1e-5)
    assert found.interval == pytest.approx((6 - 4.96827, 6 + 4.96827), rel=1e-5)


def test_differences_are_taken_pair_by_pair():
    a, b = [1.0, 5.0, 9.0], [1.5, 5.7, 9.3]  # seeds differ by far more than recipes do
    found = paired_difference(a, b)  # 0.5, 0.7, 0.3: deviation 0.2
    assert found.mean == pytest.approx(0.5)
    assert found.half_width == pytest.approx(4.30265 * 0.2 / 3**0.5, rel=1e-5)
    assert (found.sign, paired_difference(b, a).sign) == (1, -1)
    assert paired_difference(a, [2.0, 4.0, 9.0]).sign == 0
    with pytest.raises(ValueError, match="shorter"):
        paired_difference(a, b[:2])


def test_one_value_has_no_interval():
    found = paired_difference([1.0], [2.0])
    assert (found.mean, found.half_width, found.interval, found.sign) == (1.0, None, None, 0)


def test_equal_values_have_one_of_no_width():
    assert estimate([3.0, 3.0]).interval == (3.0, 3.0)
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).sign == 0
