"""Shares of the time, and advice at its limits."""

from __future__ import annotations

import pytest

from foreloom.monitoring.time_parts import PARTS, advise, shares


def test_shares_add_up_and_need_some_time():
    assert shares({"data_wait": 1.0, "other": 3.0}) == {"data_wait": 0.25, "other": 0.75}
    assert shares({}) == shares({"other": 0.0}) == {}


@pytest.mark.parametrize(
    ("part", "limit"),
    [("data_wait", 0.2), ("optimizer", 0.3), ("communication", 0.2), ("evaluation", 0.25), ("checkpoint", 0.1),
     ("other", 0.25)],
)  # fmt: skip
def test_each_part_has_its_limit(part, limit):
    def with_share(share):
        return advise({"forward_backward": 1 - share, part: share})

    assert with_share(limit - 0.01) is None
    advice = with_share(limit + 0.01)
    assert advice.part == part
    assert advice.sentence.startswith(f"{part.replace('_', ' ')} takes {limit + 0.01:.0%} of the time: ")


def test_the_part_furthest_above_its_limit_is_named_and_computing_never_is():
    assert advise({"forward_backward": 40, "data_wait": 30, "checkpoint": 30}).part == "checkpoint"
    assert advise({"forward_backward": 100}) is None
    assert advise({}) is None
    assert set(PARTS) >= {"forward_backward", "data_wait"}
