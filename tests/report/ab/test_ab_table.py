"""The table and its verdict, from runs whose numbers are made up."""

from __future__ import annotations

import pytest

from foreloom.report.ab.figure import loss_figure, mean_curve
from foreloom.report.ab.measures import Measured
from foreloom.report.ab.plan import Comparison, Training
from foreloom.report.ab.table import as_data, compare, table_of, verdict
from foreloom.report.ab.training import Job


def runs(losses, arm="A", **values):
    """A run a seed, seeds from 1 on."""
    found = {}
    for seed, loss in enumerate(losses, start=1):
        job = Job(Training(arm, seed, 10), None, [], None)  # type: ignore[arg-type]
        found[seed] = Measured(job, {"loss": loss, **values}, {0: 9.0, 1: 3.0, 10: loss}, 1e9, {})
    return found


def compared(a, b, *, loss_is_same=True):
    return compare("At equal steps", ("A: one", "B: two"), a, b, loss_is_same=loss_is_same)


A = [1.0, 5.0, 9.0]


@pytest.mark.parametrize(
    ("losses", "word", "sentence"),
    [
        ([0.5, 4.3, 8.7], "better", "B is better: the held-out loss of B is 0.500 lower than that of A"),
        ([1.5, 5.7, 9.3], "worse", "B is worse: the held-out loss of B is 0.500 higher than that of A"),
        ([1.5, 4.9, 9.0], "unclear", "A and B cannot be told apart: the held-out loss of B is 0.133 higher"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(losses, word, sentence):
    found = compared(runs(A), runs(losses, "B"))
    assert verdict(found).startswith(sentence)
    assert table_of(found).rows[0][-1] == word
    assert found.is_worse == (word == "worse")


def test_cells():
    a = runs(A, num_steps=100.0, rows_per_second=50.0)
    b = runs([0.5, 4.3, 8.7], "B", num_steps=100.0, rows_per_second=40.0, expert_entropy=0.75)
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
    a, b = runs(A), runs([0.5, 4.3, 8.7], "B")
    del b[2]
    found = compared(a, b)
    assert found.num_seeds == 2
    loss = found.rows[0]
    assert (loss.a.num_values, loss.b.num_values, loss.difference.num_values) == (3, 2, 2)
    assert loss.difference.mean == pytest.approx(-0.4)
    nothing = compared(a, {})
    assert verdict(nothing) == "No seed with which both recipes have finished: nothing can be said."
    assert not nothing.is_worse


def test_one_seed_decides_nothing():
    found = compared(runs([1.0]), runs([9.0], "B"))
    assert table_of(found).rows[0] == ["Held-out loss", "1", "9", "+8", "one seed"]
    assert verdict(found) == "Of one seed, the held-out loss of B is 8 higher than that of A."
    assert "no interval" in table_of(found).notes[1]
    same = "Of one seed, the held-out loss of B is no higher and no lower than that of A."
    assert verdict(compared(runs([1.0]), runs([1.0], "B"))) == same
    assert not found.is_worse


def test_losses_of_different_kinds_leave_the_verdict_to_wql():
    a, b = runs(A, wql=0.2), runs([0.1, 0.2, 0.3], "B", wql=0.3)
    found = compared(a, b, loss_is_same=False)
    assert table_of(found).rows[0][-2:] == [None, ""]
    assert verdict(found).startswith("B is worse: the held-out WQL of B is 0.100 higher")


def test_numbers_for_programs():
    data = as_data(compared(runs(A), runs([0.5, 4.3, 8.7], "B")))
    loss = data["measures"]["loss"]
    assert loss["b_is"] == "better" and loss["difference"]["num_seeds"] == 3
    assert loss["difference"]["mean"] == pytest.approx(-0.5)
    assert loss["difference"]["interval"] == pytest.approx((-0.996827, -0.003173), abs=1e-6)


def test_curves():
    a, b = list(runs([1.0, 3.0]).values()), list(runs([2.0], "B-equal-compute").values())
    b[0].curve[4] = 2.5  # type: ignore[index]
    assert mean_curve(a) == ([1, 10], [3.0, 2.0], [3.0, 1.0], [3.0, 3.0])
    assert mean_curve(b)[0] == [1, 4, 10]
    one = Comparison("At equal compute", "B-equal-compute")
    figure = loss_figure([Comparison("At equal steps", "B"), one], [*a, *b])
    by_steps, by_flops = figure.axes
    assert [line.get_label() for line in by_steps.lines] == ["A"]
    assert [line.get_label() for line in by_flops.lines] == ["A", "B"]
    assert by_flops.lines[1].get_xdata().tolist() == [1e9, 4e9, 1e10]
    assert len(by_flops.collections) == 1  # the band; one seed has none
