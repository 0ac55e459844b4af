"""Inspecting and converting data sets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom.data.convert import convert
from foreloom.data.formats.reader import open_source
from foreloom.data.inspect import inspect


@pytest.fixture
def mixed_set(tmp_path):
    rows = [
        [float(v) for v in range(30)],
        [5.0] * 20,
        [1.0, float("nan"), float("inf"), 4.0] * 3,
        [float(v) for v in range(30)],
        [float("nan")] * 8,
        [float(v) for v in range(1300)],
    ]
    table = pa.table(
        {
            "item_id": list("abcdef"),
            "freq": ["h", "h", "D", None, "h", "D"],
            "target": pa.array(rows, pa.list_(pa.float32())),
            "past__x": [row if len(row) == 30 else None for row in rows],
            "future_cat__day": [["x"] * len(row) for row in rows],
            "static__kind": ["k"] * 6,
        }
    )
    pq.write_table(table, tmp_path / "mixed.parquet")
    return tmp_path / "mixed.parquet"


def test_report(mixed_set) -> None:
    report = inspect(mixed_set, context_length=16, prediction_length=8, num_examples=6)
    assert (report.layout, report.num_series, report.num_inspected) == ("parquet", 6, 6)
    assert report.num_points == 30 + 20 + 12 + 30 + 8 + 1300
    assert report.length_quantiles == {0.0: 8, 0.25: 14, 0.5: 25, 0.75: 30, 1.0: 1300}
    assert report.freqs == {"h": 3, "D": 2, "unknown": 1}
    assert (report.num_missing, report.num_non_finite) == (3 + 8, 3)
    assert report.missing_share == 11 / 1400
    assert report.num_constant == 2
    assert report.num_duplicates == 1
    assert (report.past, report.future, report.categorical, report.static) == (("x",), ("day",), ("day",), ("kind",))
    assert (report.num_usable, report.num_full_context) == (4, 3)
    assert report.variates == (1, 1)
    longest = report.examples[-1]
    assert longest.item_id == "f"
    assert len(longest.steps) <= 500
    np.testing.assert_array_equal(longest.values, longest.steps)


def test_a_part_of_a_large_set(mixed_set) -> None:
    report = inspect(mixed_set, max_series=3, num_examples=2)
    assert (report.num_series, report.num_inspected, len(report.examples)) == (6, 3, 2)
    assert report.num_points == 1400


def test_points_and_variates_are_of_all_series_whichever_are_read(tmp_path) -> None:
    targets = [[[1.0] * 10] * 2, *[[[1.0] * 2]] * 9]
    pq.write_table(pa.table({"target": targets}), tmp_path / "some.parquet")
    reports = [inspect(tmp_path / "some.parquet", max_series=most) for most in (3, 10)]
    assert {(report.num_points, report.variates) for report in reports} == {(38, (1, 2))}


@pytest.mark.parametrize("name", ["bike_sharing", "nn5", "pbs"])
@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_conversion_keeps_everything(tmp_path, shared, name, form) -> None:
    before = open_source(shared / "data" / name)
    assert convert(shared / "data" / name, tmp_path / f"out.{form}", form) == len(before)
    after = open_source(tmp_path / f"out.{form}")
    assert len(after) == len(before)
    for item in range(len(before)):
        a, b = before.read(item), after.read(item)
        assert (a.item_id, a.start, a.freq, a.static) == (b.item_id, b.start, b.freq, b.static)
        np.testing.assert_array_equal(a.target_VT, b.target_VT)
        for role in ("past", "future"):
            left, right = getattr(a, role), getattr(b, role)
            assert list(left) == list(right)
            for covariate in left:
                np.testing.assert_array_equal(left[covariate], right[covariate])


def test_conversion_of_absent_and_categorical_covariates(tmp_path, mixed_set) -> None:
    convert(mixed_set, tmp_path / "out.arrow")
    after = open_source(tmp_path / "out.arrow")
    assert after.num_rows.tolist() == open_source(mixed_set).num_rows.tolist() == [3, 2, 2, 3, 2, 2]
    assert after.read(1).future["day"].tolist() == ["x"] * 20


def test_conversion_never_overwrites_and_leaves_nothing_half_done(tmp_path, mixed_set) -> None:
    out = tmp_path / "out" / "set.arrow"
    with pytest.raises(ValueError, match=r"the name should end in .* here \.parquet"):
        convert(mixed_set, out, "parquet")
    seen = []
    watch = lambda series, total: (seen.append((one.item_id, total)) or one for one in series)
    assert convert(mixed_set, out, watch=watch) == len(seen) == seen[0][1] == 6
    inspect(mixed_set, max_series=4, watch=watch)
    assert len(seen) == 10 and seen[-1][1] == 4
    with pytest.raises(ValueError, match="the file exists already"):
        convert(mixed_set, out)
    assert [path.name for path in out.parent.iterdir()] == ["set.arrow"]
    (tmp_path / "bad.jsonl").write_text('{"target": [[1, 2]]}\n{"target": [3], "past__x": ["a"]}\n')
    with pytest.raises(ValueError, match="past__x"):
        convert(tmp_path / "bad.jsonl", out.parent / "bad.arrow")
    with pytest.raises(ValueError, match="all.arrow: .*out is read, and nothing is written over it or into it"):
        convert(out.parent, out.parent / "all.arrow")
    assert [path.name for path in out.parent.iterdir()] == ["set.arrow"]


def test_a_covariate_that_turns_up_late_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("foreloom.data.formats.writer._BATCH_SERIES", 2)
    lines = ['{"target": [1, 2]}'] * 2 + ['{"item_id": "late", "target": [3], "past__x": [1]}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="series 'late' has the past covariate 'x', which no series before it has"):
        open_source(tmp_path / "a.jsonl")
