"""The four patterns: formulas, shares and noise."""

from __future__ import annotations

import numpy as np

from foreloom.data.synthetic.patterns import KINDS, PROCESS, PatternsConfig
from foreloom.data.synthetic.process import Draws


def test_curves_noise_and_offsets():
    num_series, num_steps = 4000, 60
    draws = Draws(0, "patterns", np.arange(num_series))
    series = PROCESS.generate(draws, num_steps, PatternsConfig())
    kinds = np.array(PROCESS.kinds(draws, PatternsConfig()))
    assert [(kinds == kind).sum() for kind in KINDS] == [1000] * 4
    t = np.linspace(0, 4 * np.pi, num_steps)
    curves = {
        "trend": (0.5 * t, 0.1),
        "seasonal": (3 * np.sin(t) + 2 * np.sin(2 * t), 0.2),
        "noise": (0.1 * np.sin(t), 1.0),
        "mixed": (0.2 * t + 2 * np.sin(t) + np.sin(3 * t), 0.3),
    }
    for kind, (curve, deviation) in curves.items():
        rest = series[kinds == kind] - curve
        offset = rest.mean(axis=1)
        assert abs(offset.mean()) < 0.3 and abs(offset.std() - 2) < 0.2, kind
        assert abs((rest - offset[:, None]).std() / deviation - 1) < 0.03, kind


def test_the_same_series_whatever_the_batch():
    together = PROCESS.generate(Draws(0, "patterns", np.arange(9)), 30, PatternsConfig())
    apart = PROCESS.generate(Draws(0, "patterns", np.array([6])), 30, PatternsConfig())
    np.testing.assert_array_equal(apart[0], together[6])
