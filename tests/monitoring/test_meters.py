"""The running figures of a run."""

from __future__ import annotations

import math

import pytest

from foreloom.monitoring.meters import GradNormMeter, LossMeter


def test_loss_meter():
    meter = LossMeter()
    for step, loss in enumerate([10.0, 9.5, math.nan, 8.9, 9.2, 8.0], start=1):
        meter.update(step, loss)
    ema = 0.0
    for loss in (10.0, 9.5, 8.9, 9.2, 8.0):
        ema = 0.95 * ema + 0.05 * loss
    ema /= 1 - 0.95**5
    assert (meter.first, meter.last, meter.best, meter.best_step) == (10.0, 8.0, 8.0, 6)
    assert meter.ema == pytest.approx(ema, rel=1e-12)
    assert meter.num_milestones == 2  # 8.9 is 11 % below 10, 8.0 is 10.1 % below 8.9


def test_grad_norm_meter_judges_against_the_ten_before():
    meter = GradNormMeter()
    assert not any(meter.update(norm) for norm in [1.0, 60.0, *[1.0] * 9])  # no verdict before ten norms
    assert not meter.update(30.0)  # the mean still holds the 60
    meter = GradNormMeter()
    for _ in range(10):
        meter.update(1.0)
    assert (meter.update(4.9), meter.num_explosions) == (False, 0)
    assert (meter.update(9.0), meter.num_explosions) == (True, 0)
    assert (meter.update(30.0), meter.num_explosions) == (True, 1)
    assert (meter.update(math.inf), meter.num_explosions) == (True, 2)
    assert math.isfinite(sum(meter.recent))
