"""The seasons that are found: to the step, the week behind the days, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreloom.models.common.season import seasons_of


def seasonal(period: int, length: int, noise: float, rows: int = 20) -> np.ndarray:
    """(rows, length) about a slope, the profile of long periods without jumps."""
    rng = np.random.default_rng(period)
    profile = rng.normal(size=(rows, period))
    if period > 24:
        profile = profile.cumsum(1) - np.linspace(0, 1, period) * profile.sum(1, keepdims=True)
    profile = (profile - profile.mean(1, keepdims=True)) / profile.std(1, keepdims=True)
    values = np.tile(profile, -(-length // period))[:, :length] + noise * rng.normal(size=(rows, length))
    return (values + np.linspace(0, 2, length)).astype(np.float32)


@pytest.mark.parametrize(
    "period, length", [(7, 21), (12, 96), (24, 192), (48, 144), (144, 432), (288, 576), (336, 576)]
)
def test_a_season_is_found_to_the_step(period, length):
    values = torch.from_numpy(seasonal(period, length, noise=0.05))
    observed = torch.rand(values.shape, generator=torch.manual_seed(0)) > 0.1
    for seen in (torch.ones_like(observed), observed):
        seasons = seasons_of(torch.where(seen, values, 0.0), seen)
        assert (seasons.lag_B == period).float().mean() >= 0.9, seasons.lag_B
        assert seasons.correlation_B[seasons.lag_B == period].min() > 0.98, "no line tilts it"
        padded = seasons_of(
            torch.nn.functional.pad(torch.where(seen, values, 0.0), (100, 0)), torch.nn.functional.pad(seen, (100, 0))
        )
        torch.testing.assert_close(padded, seasons)


def test_weeks_that_repeat_exactly_are_found_behind_days_that_nearly_do():
    hour = torch.arange(672)
    values = (2.5 * torch.sin(hour * torch.pi / 12) + (hour // 24 % 7 > 4))[None]
    observed = torch.ones_like(values, dtype=torch.bool)
    assert seasons_of(values, observed).lag_B.item() == 168
    noisy = values + 2 * torch.randn(values.shape, generator=torch.manual_seed(0))
    both = seasons_of(noisy, observed)
    assert both.lag_B.item() == 24, "noise hides what the week adds"
    assert both.longer_B.item() == 168 and both.longer_correlation_B > both.correlation_B


def test_what_repeats_exactly_has_its_season_however_it_is_padded():
    for length in range(9, 60):
        row = (torch.arange(float(length)) % 2)[None] - 0.5
        for padding in range(0, 90, 3):
            padded, seen = torch.nn.functional.pad(row, (padding, 0)), torch.ones(1, padding + length, dtype=torch.bool)
            seen[:, :padding] = False
            assert seasons_of(padded, seen).lag_B.item() == 2, (length, padding)


def test_what_has_no_season_has_none():
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(size=(100, 512)).astype(np.float32))
    assert not seasons_of(noise, torch.ones_like(noise, dtype=torch.bool)).lag_B.any()
    for row in (torch.zeros(1, 60), torch.arange(60.0)[None], torch.ones(1, 3)):
        for seen in (torch.ones_like(row), torch.zeros_like(row)):
            assert seasons_of(row * seen, seen.bool()).lag_B.item() == 0
