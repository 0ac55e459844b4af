from __future__ import annotations

import math

from foreloom.training.scoring import BestLoss


def after(losses: list[float], min_delta: float = 0.0) -> BestLoss:
    best = BestLoss()
    for step, loss in enumerate(losses):
        best.note(step, loss, min_delta)
    return best


def test_the_lowest_loss_and_how_long_ago() -> None:
    best = after([3.0, 2.0, 2.5, 2.0, 2.1])
    assert (best.loss, best.step, best.last_step, best.num_in_vain) == (2.0, 1, 4, 3)
    assert after([3.0, 2.0, 1.0]).num_in_vain == 0


def test_small_steps_down_add_up_to_an_improvement() -> None:
    best = after([1.0, 0.95, 0.9], min_delta=0.08)
    assert (best.loss, best.step, best.num_in_vain) == (0.9, 2, 0)
    best = after([1.0, 0.95, 0.93], min_delta=0.08)
    assert (best.loss, best.step, best.num_in_vain) == (0.93, 2, 2)


def test_a_loss_that_is_not_finite_says_nothing() -> None:
    best = after([math.nan, math.inf])
    assert (best.step, best.last_step, best.num_in_vain) == (None, 1, 0)
    best = after([math.nan, 5.0, math.nan, 5.0, math.inf], min_delta=0.1)
    assert (best.loss, best.step, best.num_in_vain) == (5.0, 1, 1)
