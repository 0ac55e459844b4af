"""The verdict, from numbers that are made up: Student's intervals, the table, its sentence and the figure."""

from __future__ import annotations

import pytest

from foreloom.lab import verdict
from foreloom.lab.runs import Outcome
from foreloom.lab.verdict import (
    Panel,
    as_data,
    compare,
    estimate,
    loss_figure,
    mean_curve,
    paired_difference,
    sentence,
    table_of,
)


def runs(losses, **values):
    """What a run a seed is measured by, seeds from 1 on."""
    return {seed: {"loss": loss, **values} for seed, loss in enumerate(losses, start=1)}


def compared(a, b, *, loss_is_same=True):
    return compare("At equal steps", ("A: one", "B: two"), a, b, loss_is_same=loss_is_same)


A = [1.0, 5.0, 9.0]


@pytest.mark.parametrize(
    ("losses", "word", "told"),
    [
        ([0.5, 4.3, 8.7], "better", "B is better: the held-out loss of B is 0.500 lower than that of A"),
        ([1.5, 5.7, 9.3], "worse", "B is worse: the held-out loss of B is 0.500 higher than that of A"),
        ([1.5, 4.9, 9.0], "unclear", "A and B cannot be told apart: the held-out loss of B is 0.133 higher"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(losses, word, told):
    found = compared(runs(A), runs(losses))
    assert sentence(found).startswith(told)
    assert table_of(found).rows[0][-1] == word
    assert found.is_worse == (word == "worse")


def test_cells():
    a = runs(A, num_steps=100.0, rows_per_second=50.0)
    b = runs([0.5, 4.3, 8.7], num_steps=100.0, rows_per_second=40.0, expert_entropy=0.75)
    titled = table_of(compared(a, b), ["A note."])
    assert [column.name for column in titled.columns] == ["Measure", "A: one", "B: two", "Difference", "Verdict"]
    assert titled.rows == [
        ["Held-out loss", "5 ± 9.9", "4.500 ± 10", "-0.500 (-0.997 to -0.00317)", "better"],
        ["Steps", "100", "100", "0", ""],
        ["Rows a second", "50", "40", "-10", "worse"],
        ["Expert usage, entropy", None, "0.7500", None, ""],
    ]
    assert titled.notes[-1] == "A note."
    for form in ("markdown", "latex", "csv", "html"):
        assert "Held-out loss" in titled.render(form)


def test_seeds_that_one_recipe_failed_with_are_left_out_of_the_difference():
    a, b = runs(A), runs([0.5, 4.3, 8.7])
    del b[2]
    found = compared(a, b)
    assert found.num_seeds == 2
    loss = found.rows[0]
    assert (loss.a.num_values, loss.b.num_values, loss.difference.num_values) == (3, 2, 2)
    assert loss.difference.mean == pytest.approx(-0.4)
    nothing = compared(a, {})
    assert sentence(nothing) == "No seed with which both recipes have finished: nothing can be said."
    assert not nothing.is_worse


def test_one_seed_decides_nothing():
    found = compared(runs([1.0]), runs([9.0]))
    assert table_of(found).rows[0] == ["Held-out loss", "1", "9", "+8", "one seed"]
    assert sentence(found) == "Of one seed, the held-out loss of B is 8 higher than that of A."
    assert "no interval" in table_of(found).notes[1]
    two = compared(runs([1.0, 2.0], num_steps=9.0), runs([9.0, 11.0], num_steps=9.0))
    assert table_of(two).rows[0] == ["Held-out loss", "1.500", "10", "+8.50", "2 seeds"]
    assert table_of(two).rows[1][-2:] == ["0", ""], "what is neither good nor bad has no verdict"
    assert sentence(two) == "Of 2 seeds, the held-out loss of B is 8.50 higher than that of A." and not two.is_worse
    equal = compared(runs([1.0, 2.0]), runs([1.5, 2.5]))
    assert table_of(equal).rows[0] == ["Held-out loss", "1.500", "2", "+0.500", "2 seeds"] and not equal.is_worse
    assert sentence(equal) == "Of 2 seeds, the held-out loss of B is 0.500 higher than that of A."
    assert compared(runs([1.0, 2.0, 4.0]), runs([1.5, 2.5, 4.5])).is_worse, "of three it is no chance"
    same = "Of one seed, the held-out loss of B is no higher and no lower than that of A."
    assert sentence(compared(runs([1.0]), runs([1.0]))) == same
    assert not found.is_worse


def test_losses_of_different_kinds_leave_the_verdict_to_wql():
    a, b = runs(A, wql=0.2), runs([0.1, 0.2, 0.3], wql=0.3)
    found = compared(a, b, loss_is_same=False)
    assert table_of(found).rows[0][-2:] == [None, ""]
    assert sentence(found).startswith("B is worse: the held-out WQL of B is 0.100 higher")


def test_no_number_ends_in_a_point():
    assert [verdict._number(value, 3) for value in (99.94, 99.96, 123.4, 0.5)] == ["99.9", "100", "123", "0.500"]


def test_numbers_for_programs():
    data = as_data(compared(runs(A), runs([0.5, 4.3, 8.7])))
    loss = data["measures"]["loss"]
    assert loss["b_is"] == "better" and loss["difference"]["num_seeds"] == 3
    assert loss["difference"]["mean"] == pytest.approx(-0.5)
    assert loss["difference"]["interval"] == pytest.approx((-0.996827, -0.003173), abs=1e-6)


def test_curves():
    def outcomes(*losses: float) -> list[Outcome]:
        return [
            Outcome("a", "", [], "", "finished", num_steps=10, flops=1e10, curve=[[0, 9.0], [1, 3.0], [10, loss]])
            for loss in losses
        ]

    a, b = outcomes(1.0, 3.0), outcomes(2.0)
    b[0].curve.insert(2, [4, 2.5])
    assert mean_curve(a) == ([1, 10], [3.0, 2.0], [3.0, 1.0], [3.0, 3.0])
    assert mean_curve(b)[0] == [1, 4, 10]
    names = ("dense", "experts")
    figure = loss_figure([Panel("steps", a, [], False, names), Panel("compute", a, b, True, names)])
    by_steps, by_flops = figure.axes
    assert [line.get_label() for line in by_steps.lines] == ["A: dense"]
    assert [line.get_label() for line in by_flops.lines] == ["A: dense", "B: experts"]
    assert by_flops.lines[1].get_xdata().tolist() == [1e9, 4e9, 1e10]
    assert len(by_flops.collections) == 1  # the band; one seed has none


@pytest.mark.parametrize(
    ("confidence", "num_values", "printed"),
    [
        (0.95, 3, 4.30265), (0.95, 4, 3.18245), (0.95, 5, 2.77645), (0.95, 10, 2.26216),
        (0.95, 31, 2.04227), (0.95, 1001, 1.96234), (0.90, 6, 2.01505), (0.99, 3, 9.92484),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(confidence, num_values, printed, monkeypatch):
    monkeypatch.setattr(verdict, "CONFIDENCE", confidence)
    values = [0.0] * num_values
    values[:2] = 1.0, -1.0  # deviation sqrt(2 / (n - 1))
    half_width = estimate(values).half_width
    assert half_width == pytest.approx(printed * (2 / (num_values - 1) / num_values) ** 0.5, rel=2e-5)


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
    assert estimate([3.0, 3.0, 3.0]).interval == (3.0, 3.0)
    assert paired_difference([1.0, 2.0, 4.0], [1.0, 2.0, 4.0]).sign == 0
    assert estimate([3.0, 3.0]).interval is None, "two may be equal by chance"
