"""Centre and spread of rows with holes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreloom.models.common.standardize import SMALLEST_SCALE, standardizer_of


def test_statistics_leave_missing_steps_out():
    rows = np.random.default_rng(0).normal(5.0, 3.0, (4, 50)).astype(np.float32)
    rows[1, ::3] = np.nan
    standardizer = standardizer_of(torch.from_numpy(rows), arcsinh=False)
    np.testing.assert_allclose(standardizer.loc[:, 0], np.nanmean(rows, 1), rtol=1e-5)
    np.testing.assert_allclose(standardizer.scale[:, 0], np.nanstd(rows, 1), rtol=1e-5)


def test_rows_without_spread_or_values():
    rows = torch.tensor([[3.0, 3.0, float("nan")], [float("nan")] * 3])
    standardizer = standardizer_of(rows, arcsinh=True)
    assert standardizer.loc.tolist() == [[3.0], [0.0]]
    assert standardizer.scale.tolist() == [[pytest.approx(SMALLEST_SCALE)], [1.0]]


@pytest.mark.parametrize("arcsinh", [False, True])
def test_invert_undoes_apply(arcsinh):
    rows = torch.linspace(-7, 900, 60).reshape(2, 30)
    standardizer = standardizer_of(rows, arcsinh)
    torch.testing.assert_close(standardizer.invert(standardizer.apply(rows)), rows, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("exponent", [-110, -60, 60, 120])
def test_tiny_and_huge_rows_are_seen_as_ordinary_ones(exponent):
    rows = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) + 2
    rows[1, ::4] = torch.nan
    unit = 2.0**exponent
    plain, moved = standardizer_of(rows, arcsinh=True), standardizer_of(rows * unit, arcsinh=True)
    assert torch.equal(moved.scale, plain.scale * unit) and torch.equal(moved.loc, plain.loc * unit)
    assert torch.equal(moved.apply(rows * unit).nan_to_num(), plain.apply(rows).nan_to_num())
