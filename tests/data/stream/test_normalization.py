"""Normalised windows: what counts, what does not, and from which steps."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from foreloom.data.config import DataConfig, GroupConfig, SourceConfig
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.normalization import center_and_scale, drowning_levels
from loaders import series_loader

NAN = float("nan")


def windows_of(source, *, holdout: int = 0, batch_size: int = 50, **settings):
    config = DataConfig(
        sources=(SourceConfig(path="a", holdout=holdout),),
        **{"context_length": 16, "prediction_length": 4, "min_past": 4, "num_prefetch": 0} | settings,
    )
    (windows,) = series_loader(config, seed=0, batch_size=batch_size, sources=[source]).batch(0).micro_batches
    assert windows.context_RC.dtype == windows.future_RH.dtype == np.float32
    return windows


@pytest.mark.parametrize("normalization", ["zero", "max"])
def test_center_and_scale_are_those_of_numpy(normalization) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(3, 5, (6, 40))
    rows[rng.random(rows.shape) < 0.2] = NAN
    rows[1, 3] = np.inf
    center, scale = center_and_scale(rows, normalization)
    clean = np.where(np.isfinite(rows), rows, NAN)
    if normalization == "zero":
        np.testing.assert_allclose(center, np.nanmean(clean, axis=1), rtol=1e-12)
        np.testing.assert_allclose(scale, np.nanstd(clean, axis=1), rtol=1e-12)
    else:
        assert not center.any()
        np.testing.assert_array_equal(scale, np.nanmax(np.abs(clean), axis=1))


def test_rows_that_have_no_scale() -> None:
    rows = np.array([[NAN, NAN, NAN], [7.0, 7.0, NAN], [0.1, 0.1, 0.1], [1e9, 1e9 + 1e-6, 1e9], [0.0, 0.0, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        center, scale = center_and_scale(rows, "zero")
        np.testing.assert_allclose(center, [0, 7, 0.1, 1e9, 0])
        np.testing.assert_array_equal(scale, np.ones(5))
        center, scale = center_and_scale(rows, "max")
        np.testing.assert_array_equal(center, np.zeros(5))
        np.testing.assert_allclose(scale, [1, 7, 0.1, 1e9, 1])
        assert [part.shape for part in center_and_scale(np.empty((2, 0)), "zero")] == [(2,), (2,)]
        huge = np.array([[1e308, -1e308, 1e308, -1e308]])
        np.testing.assert_allclose(center_and_scale(huge, "zero"), ([0.0], [1e308]))


def test_levels_that_float32_would_drown_moves_in_are_taken_off() -> None:
    moves = np.random.default_rng(0).normal(0, 10, 40)
    rows = np.stack([1e9 + moves, -1e6 + moves, 1e5 + moves, np.full(40, 1e9), 1e30 * (1e9 + moves), moves * NAN])
    rows[0, 5], rows[1, 7] = NAN, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        level = drowning_levels(rows)
    np.testing.assert_allclose(level, [1e9, -1e6, 0, 0, 1e39, 0], rtol=1e-5)
    assert center_and_scale(rows[:1], "zero")[1] == pytest.approx(np.nanstd(rows[0]))

    series = [Series("level", rows[:1]), Series("plain", moves[None]), Series("flat", rows[3:4])]
    one, other = (
        windows_of(MemorySource([series[0], each]), stride=20, batch_size=4) for each in (series[1], series[2])
    )
    for windows in (one, other):
        row = np.concatenate([windows.context_RC, windows.future_RH], axis=1)[windows.item_R == 0][0]
        seen = np.isfinite(rows[0, :20])
        expected = rows[0, :20] - np.nanmean(rows[0, :16])
        np.testing.assert_allclose(row[seen], expected[seen], atol=1e-5)
        assert np.isnan(row[~seen]).all()
    np.testing.assert_array_equal(one.context_RC[one.item_R == 1][0], moves[:16].astype(np.float32))
    assert (other.context_RC[other.item_R == 1] == np.float32(1e9)).all()


def test_integers_are_not_rounded_and_one_nan_ruins_nothing(shared, tmp_path) -> None:
    from foreloom.data.formats.reader import open_source

    folder = shared / "oracles" / "time_moe" / "data" / "windows"
    source = open_source(folder / "ints.jsonl")
    windows = windows_of(
        source,
        normalization="zero",
        normalization_scope="series",
        stride=8,
        context_length=7,
        prediction_length=1,
        min_past=1,
        batch_size=1,
    )
    ours = np.concatenate([windows.context_RC[0], windows.future_RH[0]])
    np.testing.assert_allclose(ours, np.load(folder / "ints.npz")["sane_float"], atol=1e-6)

    (tmp_path / "a.jsonl").write_text('{"target": [1, 2, null, 10, 4, 5, 6, 7]}\n[9007199254740993, 1, 2, 3, 4]\n')
    source = open_source(tmp_path / "a.jsonl")
    windows = windows_of(
        source, normalization="zero", stride=8, context_length=7, prediction_length=1, min_past=1, batch_size=2
    )
    row = windows.context_RC[windows.item_R == 0][0]
    assert np.isnan(row).tolist() == [False, False, True, False, False, False, False]
    observed = np.array([1, 2, 10, 4, 5, 6])
    np.testing.assert_allclose(row[~np.isnan(row)], (observed - observed.mean()) / observed.std(), rtol=1e-6)
    assert source.read(1).target_VT.tolist() == [[9007199254740992.0, 1, 2, 3, 4]]


@pytest.mark.parametrize("normalization", ["zero", "max"])
def test_context_scope_never_sees_the_future(normalization) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(100, 10, (2, 20))
    covariate = rng.normal(-5, 2, 20)
    moved = values.copy()
    moved[:, 16:] += 1e6
    a, b = (
        windows_of(
            MemorySource([Series("a", v, future={"x": covariate})]),
            normalization=normalization,
            stride=20,
            batch_size=1,
        )
        for v in (values, moved)
    )
    np.testing.assert_array_equal(a.context_RC, b.context_RC)
    assert not np.array_equal(a.future_RH[:2], b.future_RH[:2])
    for row, whole in enumerate([*values, covariate]):
        center, scale = (whole[:16].mean(), whole[:16].std()) if normalization == "zero" else (0, abs(whole[:16]).max())
        np.testing.assert_allclose(a.context_RC[row], (whole[:16] - center) / scale, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(a.future_RH[row], (whole[16:] - center) / scale, rtol=2e-5, atol=1e-6)


def test_series_scope_is_taken_from_what_training_may_read() -> None:
    rng = np.random.default_rng(2)
    series = [Series(str(n), rng.normal(50, 9, (1 + n % 2, 60 + n))) for n in range(5)]
    windows = windows_of(
        MemorySource(series), holdout=10, normalization="zero", normalization_scope="series", stride=3, batch_size=80
    )
    rows = {number: series[number].target_VT[:, :-10] for number in range(5)}
    variate: dict[int, int] = {}
    for row in range(windows.num_rows):
        sample, item = int(windows.sample_R[row]), int(windows.item_R[row])
        variate[sample] = variate.get(sample, -1) + 1
        whole = rows[item][variate[sample]]
        scaled = ((whole - whole.mean()) / whole.std()).astype(np.float32)
        ours = np.concatenate([windows.context_RC[row], windows.future_RH[row]])
        places = [p for p in range(0, len(whole) - 19, 3) if np.allclose(scaled[p : p + 20], ours, atol=1e-6)]
        assert len(places) == 1


@pytest.mark.parametrize("scope", ["context", "series"])
def test_rows_of_groups_and_of_several_sources_keep_their_own_scales(scope) -> None:
    rng = np.random.default_rng(4)
    sources = [
        MemorySource([Series(str(n), rng.normal(10**n, n + 1, (1, 40 + n))) for n in range(5)]),
        MemorySource(
            [Series(str(n), rng.normal(-7, 3, (2, 50)), past={"x": rng.normal(1e4, 1, 50)}) for n in range(3)]
        ),
    ]

    def batch(**settings):
        config = DataConfig(
            sources=(SourceConfig(path="a"), SourceConfig(path="b")),
            context_length=12,
            prediction_length=4,
            group=GroupConfig(probability=0.7, max_size=4),
            **settings,
        )
        return series_loader(config, seed=0, batch_size=60, micro_batch_size=16, sources=sources).batch(0).micro_batches

    plain, scaled = batch(), batch(normalization="zero", normalization_scope=scope)
    assert len(plain) == len(scaled) > 2
    for a, b in zip(plain, scaled, strict=True):
        assert (a.source_R == b.source_R).all() and (a.item_R == b.item_R).all()
        for row in range(a.num_rows):
            whole = a.context_RC[row][np.isfinite(a.context_RC[row])].astype(np.float64)
            if scope == "series":
                series = sources[a.source_R[row]].read(int(a.item_R[row]))
                rows = [*series.target_VT, *series.past.values()]
                (whole,) = (one for one in rows if np.float32(a.future_RH[row, 0]) in one.astype(np.float32))
            np.testing.assert_allclose(
                b.future_RH[row], (a.future_RH[row] - whole.mean()) / whole.std(), rtol=1e-3, atol=1e-2
            )


class Counting(MemorySource):
    """Counts the steps that are asked for."""

    num_steps_read = 0

    def fill_window(self, item, cut, context_RC, future_RH):
        self.num_steps_read += context_RC.shape[1] + future_RH.shape[1]
        return super().fill_window(item, cut, context_RC, future_RH)


def test_the_cost_of_a_window_does_not_grow_with_its_series() -> None:
    rng = np.random.default_rng(3)
    read = {}
    for length in (2_000, 200_000):
        source = Counting([Series("a", rng.normal(size=(1, length)))])
        config = DataConfig(
            sources=(SourceConfig(path="a"),),
            context_length=64,
            prediction_length=8,
            normalization="zero",
            normalization_scope="series",
            num_prefetch=0,
        )
        loader = series_loader(config, seed=0, batch_size=100, sources=[source])
        loader.batch(0)
        assert source.num_steps_read == length + 100 * 72
        source.num_steps_read = 0
        loader.batch(100)
        read[length] = source.num_steps_read
    assert read[2_000] == read[200_000] == 100 * 72


def test_values_too_large_for_float32_after_scaling_are_missing() -> None:
    values = np.array([[1.0, 2.0] * 8 + [1e300, 5.0, NAN, 1.0]])
    windows = windows_of(MemorySource([Series("a", values)]), normalization="zero", stride=20, batch_size=1)
    assert np.isnan(windows.future_RH[0]).tolist() == [True, False, True, False]


@pytest.mark.parametrize("normalization", ["zero", "max"])
def test_what_follows_an_unobserved_context_has_no_scale_and_is_no_label(normalization) -> None:
    late = Series("late", np.array([[NAN] * 16 + [1e6, 2e6, 3e6, 4e6], np.arange(20.0)]))
    windows = windows_of(MemorySource([late]), batch_size=1, stride=20, normalization=normalization)
    assert np.isnan(windows.future_RH[0]).all() and np.isfinite(windows.future_RH[1]).all()
    series = {"normalization": normalization, "normalization_scope": "series"}
    windows = windows_of(MemorySource([late]), batch_size=1, stride=20, **series)
    assert np.isfinite(windows.future_RH).all() and np.abs(windows.future_RH).max() < 3
