"""Patterns: each told by what makes it one, at several lengths, with gaps; noise taken for nothing else."""

import numpy as np
import pytest

from foreloom.data.pattern import pattern_of

RNG = np.random.default_rng(0)


def share_of(pattern: str, make, num_steps: int, times: int = 50) -> float:
    return sum(pattern_of(make(np.arange(num_steps))) == pattern for _ in range(times)) / times


def demand(t):
    return (RNG.random(len(t)) < 0.3) * RNG.poisson(5, len(t)).astype(float)


CASES = {
    "trending": lambda t: 10 * t / len(t) + RNG.normal(size=len(t)),
    "seasonal": lambda t: 3 * np.sin(2 * np.pi * t / 7 + RNG.uniform(0, 6)) + RNG.normal(size=len(t)),
    "both": lambda t: 10 * t / len(t) + 2 * np.sin(2 * np.pi * t / 7) + 0.5 * RNG.normal(size=len(t)),
    "intermittent": demand,
    "irregular": lambda t: RNG.normal(size=len(t)),
    "constant": lambda t: np.full(len(t), 3.5),
}


@pytest.mark.parametrize("num_steps", [30, 64, 300])
@pytest.mark.parametrize("pattern", CASES)
def test_each_pattern_is_told(pattern, num_steps):
    assert share_of(pattern, CASES[pattern], num_steps) >= 0.9


def test_scale_level_and_gaps_change_nothing():
    for pattern, make in CASES.items():
        x_L = make(np.arange(200))
        assert pattern_of(x_L * 1e-6) == pattern_of(x_L)
        with_gaps_L = np.where(RNG.random(200) < 0.2, np.nan, x_L)
        assert pattern_of(with_gaps_L) == pattern
        if pattern != "intermittent":  # of which 0 is the level
            assert pattern_of((x_L * 1e3 - 5e4).astype(np.float32)) == pattern


def test_a_season_is_seen_three_times():
    t = np.arange(72)
    wave_L = np.sin(2 * np.pi * t / 24) + 0.1 * RNG.normal(size=72)
    assert pattern_of(wave_L) == "seasonal"
    assert pattern_of(wave_L[:60]) != "seasonal"


def test_random_walks_are_not_seasonal():
    found = [pattern_of(RNG.normal(size=200).cumsum()) for _ in range(50)]
    assert {"irregular", "trending"} >= set(found) - {"both"}
    assert found.count("both") <= 2


def test_next_to_nothing_is_no_pattern():
    x_L = np.full(40, np.nan)
    assert pattern_of(x_L) == "constant"
    x_L[7] = 1.0
    assert pattern_of(x_L) == "constant"
    x_L[31] = np.inf
    assert pattern_of(x_L) == "constant"
    x_L[20] = 2.0
    assert pattern_of(x_L) == "irregular"
