"""Windows equal the reference's, given its series and cuts; missing stays missing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foreloom.data.encoding import encode
from foreloom.data.formats.reader import open_source
from foreloom.data.formats.writer import write_series
from foreloom.data.source import MemorySource, Series
from foreloom.data.stream.draw import Samples
from foreloom.data.stream.windows import Role, gather


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
