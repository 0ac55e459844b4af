"""Windows equal the reference's, given its series and cuts; missing stays missing; values are dropped as asked.

Axes: R rows, C context, H horizon.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.encoding import encode
from foreloom.data.formats.reader import open_source
from foreloom.data.formats.writer import write_series
from foreloom.data.loader import BatchLoader
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.draw import Samples
from foreloom.data.stream.held_out import ValidationWindows
from foreloom.data.stream.windows import Dropping, Role, Windows, gather
from loaders import series_loader


def samples_of(source, items, cuts, context_length: int) -> Samples:
    items, cuts = np.array(items), np.array(cuts)
    return Samples(
        first=100,
        source_N=np.zeros(len(items), dtype=np.int32),
        num_rows_N=source.num_rows[items].astype(np.int64),
        length_N=np.minimum(cuts, context_length),
        offsets_N=np.arange(len(items) + 1),
        item_M=items,
        cut_M=cuts,
    )


@pytest.fixture(scope="module")
def reference(shared):
    arrays = dict(np.load(shared / "oracles" / "chronos" / "c2_dataset.npz"))
    facts = json.loads((shared / "oracles" / "chronos" / "c2_dataset.json").read_text())
    series = [
        Series(
            item_id=str(number),
            target_VT=arrays[f"in_target_{number}"],
            past={"a": arrays[f"in_past_a_{number}"]},
            future={"b": arrays[f"in_known_b_{number}"]},
        )
        for number in range(6)
    ]
    return arrays, facts, series


def assert_equals_reference(windows, arrays, prefix) -> None:
    target, known = windows.role_R == Role.TARGET, windows.role_R == Role.FUTURE
    nan = np.float32(np.nan)
    masked = {
        "context": windows.context_RC,
        "future_target": np.where(target[:, None], windows.future_RH, nan),
        "future_covariates": np.where(known[:, None], windows.future_RH, nan),
        "group_ids": windows.group_R,
    }
    for name, ours in masked.items():
        np.testing.assert_array_equal(ours, arrays[f"{prefix}_{name}"], err_msg=f"{prefix} {name}")
        assert ours.dtype == arrays[f"{prefix}_{name}"].dtype


@pytest.mark.parametrize("kind", ["memory", "arrow"])
def test_windows_equal_the_reference(reference, tmp_path, kind) -> None:
    arrays, facts, series = reference
    source = MemorySource(series)
    if kind == "arrow":
        write_series(series, tmp_path / "set.arrow")
        source = open_source(tmp_path / "set.arrow")
    lengths = {name: facts[name] for name in ("context_length", "prediction_length")}
    for number, batch in enumerate(facts["train_batches"]):
        samples = samples_of(source, batch["source_series"], batch["split_index"], facts["context_length"])
        windows = gather([source], samples, np.arange(len(samples)), **lengths)
        assert_equals_reference(windows, arrays, f"out_train{number}")
        assert windows.sample_R.tolist() == np.repeat(np.arange(100, 104), 4).tolist()
        assert windows.item_R.tolist() == np.repeat(batch["source_series"], 4).tolist()
        assert windows.role_R.tolist() == [0, 0, 1, 2] * 4
    # VALIDATION: each series once, the last window.
    for number, items in enumerate(([0, 1, 2, 3], [4, 5])):
        cuts = source.lengths[items] - facts["prediction_length"]
        windows = gather([source], samples_of(source, items, cuts, 48), np.arange(len(items)), **lengths)
        assert_equals_reference(windows, arrays, f"out_val{number}")


def test_categorical_covariates_are_fitted_on_the_context_alone(tmp_path) -> None:
    rng = np.random.default_rng(0)
    sky = np.array([None if v == 3 else "abc"[v] for v in rng.integers(0, 4, 30)], dtype=object)
    one = Series(
        "one", rng.normal(size=(1, 30)), past={"sky": sky}, future={"day": np.array(["x", "y", "z"] * 10, object)}
    )
    two = Series(
        "two", rng.normal(size=(2, 30)), past={"sky": sky}, future={"day": np.array(["x", "y", "z"] * 10, object)}
    )
    for series in (one, two):
        write_series([series], tmp_path / f"{series.item_id}.arrow")
        for source in (MemorySource([series]), open_source(tmp_path / f"{series.item_id}.arrow")):
            windows = gather(
                [source], samples_of(source, [0], [20], 8), np.arange(1), context_length=8, prediction_length=5
            )
            num_targets = len(series.target_VT)
            for row, labels in ((num_targets, sky), (num_targets + 1, series.future["day"])):
                context, future = encode(labels[12:20], series.target_VT[:, 12:20].astype(np.float32), labels[20:25])
                np.testing.assert_array_equal(windows.context_RC[row], context.astype(np.float32))
                np.testing.assert_array_equal(windows.future_RH[row], future.astype(np.float32))
            changed = series.target_VT.copy()
            changed[:, 20:] = 1e6
            leaky = MemorySource([Series("x", changed, past=series.past, future=series.future)])
            again = gather(
                [leaky], samples_of(leaky, [0], [20], 8), np.arange(1), context_length=8, prediction_length=5
            )
            np.testing.assert_array_equal(again.future_RH[num_targets:], windows.future_RH[num_targets:])


def test_encodings_equal_the_reference(shared) -> None:
    folder = shared / "oracles" / "chronos"
    raw = json.loads((folder / "c2a_covariates.json").read_text())
    arrays = np.load(folder / "c2a_covariates.npz")
    compared = 0
    for tasks, prefix in ((raw["tasks"], "prep"), (raw["tasks2"], "prep2")):
        for number, task in enumerate(tasks):
            target = np.atleast_2d(np.array(task["target"], dtype=np.float64))
            known = sorted(task["future_covariates"])
            order = sorted(set(task["past_covariates"]) - set(known)) + known
            for row, name in enumerate(order, start=len(target)):
                past = np.array(task["past_covariates"][name], dtype=object)
                if not any(isinstance(value, str) for value in past):
                    continue
                ahead = task["future_covariates"].get(name)
                context, future = encode(past, target, None if ahead is None else np.array(ahead, dtype=object))
                np.testing.assert_allclose(context, arrays[f"{prefix}_context_{number}"][row], rtol=1e-6)
                if future is not None:
                    np.testing.assert_allclose(future, arrays[f"{prefix}_future_{number}"][row], rtol=1e-6)
                compared += 1
    assert compared >= 4


def test_infinite_values_are_missing() -> None:
    values = np.arange(20.0)
    values[[5, 15]] = np.inf, -np.inf
    source = MemorySource([Series("a", values[None])])
    windows = gather([source], samples_of(source, [0], [10], 8), np.arange(1), context_length=8, prediction_length=6)
    expected = np.where(np.isinf(values), np.nan, values).astype(np.float32)
    np.testing.assert_array_equal(windows.context_RC[0], expected[2:10])
    np.testing.assert_array_equal(windows.future_RH[0], expected[10:16])


def test_missing_values_are_refused_where_a_family_cannot_take_them() -> None:
    values = np.arange(20.0)
    values[3] = np.nan
    source = MemorySource([Series("gappy", values[None])], name="shop")

    def cut(at: int) -> None:
        gather(
            [source],
            samples_of(source, [0], [at], 6),
            np.arange(1),
            context_length=6,
            prediction_length=4,
            allow_missing=False,
        )

    cut(10)
    with pytest.raises(ValueError, match=r"shop: series 'gappy' \(row 0\) has missing values around step 9"):
        cut(9)


def sources() -> list[MemorySource]:
    rng = np.random.default_rng(0)
    univariate = [Series(str(n), rng.normal(size=(1, 150))) for n in range(30)]
    covariates = {"past": {"p": rng.normal(size=150)}, "future": {"f": rng.normal(size=150)}}
    return [MemorySource(univariate, "u"), MemorySource([Series("m", rng.normal(size=(2, 150)), **covariates)], "m")]


def loader(drop_values: float, micro: int = 0, rank: int = 0, world_size: int = 1, seed: int = 0, **settings):
    config = DataConfig(
        sources=(SourceConfig(path="u", holdout=20), SourceConfig(path="m")),
        **{"context_length": 64, "prediction_length": 16, "num_prefetch": 0, "drop_values": drop_values} | settings,
    )
    return series_loader(
        config, seed=seed, batch_size=200, micro_batch_size=micro, rank=rank, world_size=world_size, sources=sources()
    )


def one(ours: BatchLoader) -> Windows:
    (windows,) = ours.batch(0).micro_batches
    return windows


def by_row(batches) -> dict[tuple, bytes]:
    """(sample, place) -> which values are there, contexts cut to their shortest."""
    found: dict[tuple, bytes] = {}
    for batch in batches:
        for windows in batch.micro_batches:
            for row, sample in enumerate(windows.sample_R.tolist()):
                if sample >= 0:
                    place = sum(key[0] == sample for key in found)
                    there = np.isfinite(np.concatenate([windows.context_RC[row, -16:], windows.future_RH[row]]))
                    found[sample, place] = there.tobytes()
    return found


def test_shares_are_uniform_and_values_independent():
    dropping = Dropping(0.4, seed=0, stream="train")
    sample_R = np.arange(3000)
    lost_RT = dropping.lost(sample_R, np.zeros(3000, dtype=np.int64), 300, 100)
    share_R = lost_RT.mean(axis=1)
    # A uniform share, and what 400 draws of it add.
    assert abs(share_R.mean() - 0.2) < 0.01
    assert abs(share_R.std() - np.sqrt(0.4**2 / 12 + 0.147 / 400)) < 0.005
    assert share_R.max() < 0.4 + 0.1
    residual_RT = lost_RT - share_R[:, None]
    neighbours = (residual_RT[:, 1:] * residual_RT[:, :-1]).mean() / (residual_RT**2).mean()
    assert abs(neighbours) < 0.01


def test_a_value_is_lost_whatever_the_width_of_the_context():
    dropping = Dropping(0.9, seed=3, stream="train")
    sample_R, place_R = np.array([5, 5, 9]), np.array([0, 1, 0])
    wide, narrow = (dropping.lost(sample_R, place_R, width, 8) for width in (100, 10))
    np.testing.assert_array_equal(wide[:, 90:], narrow)
    assert not np.array_equal(wide[0], wide[1]) and not np.array_equal(wide[0], wide[2])


@pytest.mark.parametrize("normalization", ["none", "zero"])
def test_only_targets_lose_values(normalization):
    dropped, whole = (one(loader(share, normalization=normalization)) for share in (0.5, 0.0))
    is_target = dropped.role_R == Role.TARGET
    for name in ("context_RC", "future_RH"):
        ours, theirs = getattr(dropped, name), getattr(whole, name)
        np.testing.assert_array_equal(ours[~is_target], theirs[~is_target])
        missing = np.isnan(ours[is_target]) & ~np.isnan(theirs[is_target])
        assert 0.15 < missing.sum() / np.isfinite(theirs[is_target]).sum() < 0.35
        if normalization == "none":
            kept = np.isfinite(ours)
            np.testing.assert_array_equal(ours[kept], theirs[kept])
    if normalization == "zero":  # of what is left
        np.testing.assert_allclose(np.nanmean(dropped.context_RC, axis=1), 0, atol=1e-6)


def test_which_values_does_not_depend_on_ranks_or_micro_batches():
    whole = by_row([loader(0.5).batch(40)])
    assert by_row([loader(0.5, micro=16).batch(40)]) == whole
    assert by_row([loader(0.5, micro=16, rank=rank, world_size=3).batch(40) for rank in range(3)]) == whole
    assert by_row([loader(0.5, seed=1).batch(40)]) != whole


def test_validation_keeps_all_values():
    held_out, plain = (
        ValidationWindows(loader(share).dataset.config, max_windows=20, opened=sources()) for share in (0.9, 0.0)
    )
    for ours, theirs in zip(held_out, plain, strict=True):
        np.testing.assert_array_equal(ours.context_RC, theirs.context_RC)
        np.testing.assert_array_equal(ours.future_RH, theirs.future_RH)


def test_the_fingerprint_holds_it():
    state = loader(0.0).state_dict()
    # Pinned: with another, no run begun before could go on.
    assert state["fingerprint"] == "58e0c141d8c8a43ddf9e64c2ea2195c5"
    for share in (0.2, 0.3):
        with pytest.raises(ValueError, match="data are not those"):
            loader(share).load_state_dict(state)
    with pytest.raises(ValueError, match="data are not those"):
        loader(0.3).load_state_dict(loader(0.2).state_dict())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"drop_values": 1.0}, "drop_values: expected a number below 1"),
        ({"drop_values": -0.1}, "drop_values: expected a number of at least 0"),
        ({"drop_values": 0.1, "allow_missing": False}, "which allow_missing: false refuses"),
    ],
)
def test_wrong_settings(settings, sentence):
    raw = {"sources": [{"path": "a"}], "context_length": 8, "prediction_length": 4, **settings}
    _, problems = validate(DataConfig, raw, Located(raw), "data")
    assert len(problems) == 1 and sentence in problems[0]
