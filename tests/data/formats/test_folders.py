"""Several files as one data set: what a file is, what its series are called, and files that do not fit together."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom.data.convert import convert
from foreloom.data.formats.reader import open_source
from foreloom.data.inspect import inspect
from foreloom.evaluation.baselines import Naive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.tasks import EvaluationTask

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]


def evaluated(path):
    return evaluate(Naive(), [EvaluationTask(name="t", path=path, prediction_length=1)])


def refused(path, *words: str) -> None:
    for door in (open_source, inspect, evaluated, lambda path: convert(path, path.parent / "out.arrow")):
        with pytest.raises(ValueError) as caught:
            door(path)
        for word in words:
            assert word in str(caught.value), str(caught.value)


def ids(path) -> list[str]:
    source = open_source(path)
    return [source.read(item).item_id for item in range(len(source))]


@pytest.fixture
def folder(tmp_path):
    """Writes files of a folder of its own: text as it is, tables by the ending of their names."""

    def write(**files):
        path = tmp_path / f"folder{len(list(tmp_path.glob('folder*')))}"
        path.mkdir()
        for name, content in files.items():
            file = path / name.replace("__", ".")
            if isinstance(content, str):
                file.write_text(content)
            elif file.suffix == ".parquet":
                pq.write_table(content, file)
            else:
                with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, content.schema) as writer:
                    writer.write_table(content)
        return path

    return write


def test_a_file_without_ids_is_a_series_named_after_itself(folder, tmp_path):
    text = "ds,y\n" + "".join(f"{day},{value}\n" for value, day in enumerate(DAYS))
    shops = pa.table({"ds": DAYS, "y": [1.0, 2.0, 3.0]})
    for path in (folder(a__csv=text, b__csv=text), folder(a__parquet=shops, b__parquet=shops)):
        assert ids(path) == ["a", "b"]
        assert evaluated(path).tasks[0].num_series == 2
        assert inspect(path).num_series == convert(path, tmp_path / f"{path.name}.arrow") == 2
        assert ids(tmp_path / f"{path.name}.arrow") == ["a", "b"]
    assert ids(folder(a__csv=text, a__tsv=text.replace(",", "\t"))) == ["a.csv", "a.tsv"]
    assert ids(folder(a__jsonl="[1, 2]\n", b__jsonl="[3, 4]\n[5, 6]\n")) == ["a/0", "b/0", "b/1"]
    twice = folder(a__csv=text, b__csv=text + f"{DAYS[0]},9\n")
    refused(twice, "The time 2024-01-01 00:00:00 stands in it twice (row 2 and row 5 of", "b.csv)")


def test_files_of_a_folder_have_the_same_columns(folder):
    plain, more = "ds,y\n2024-01-01,1\n2024-01-02,2\n", "ds,y,price\n2024-01-01,1,9\n2024-01-02,2,9\n"
    named = "item_id,ds,y\nx,2024-01-01,1\nx,2024-01-02,2\n"
    other = "ds,sales\n2024-01-01,1\n2024-01-02,2\n"
    lacks = "{} has no column {!r}, {} beside it has one. Its columns: "
    for path, file, column, beside in (
        (folder(a__csv=plain, b__csv=more), "a.csv", "price", "b.csv"),
        (folder(a__csv=more, b__csv=plain), "b.csv", "price", "a.csv"),
        (folder(a__csv=plain, b__csv=named), "a.csv", "item_id", "b.csv"),
        (folder(a__csv=named, b__csv=plain), "b.csv", "item_id", "a.csv"),
        (folder(a__csv=plain, b__csv=other), "b.csv", "y", "a.csv"),
        (folder(a__csv=other, b__csv=plain), "b.csv", "sales", "a.csv"),
    ):
        refused(path, str(path / lacks.format(file, column, beside)), "folders of their own")
    series, named = pa.table({"target": [[1.0]]}), pa.table({"target": [[1.0]], "item_id": ["a"]})
    for form in ("arrow", "parquet"):
        path = folder(**{f"a__{form}": series, f"b__{form}": named})
        refused(path, f"b.{form}: the columns target, item_id differ from those of a.{form}, target")
    refused(folder(a__arrow=pa.table([[[1.0]], [[1.0]]], names=["target"] * 2)), "a.arrow has two columns 'target'")


def test_files_of_a_folder_keep_what_their_types_hold(folder):
    def two(a, b, **more):
        return folder(a__parquet=pa.table({"target": a, **more}), b__parquet=pa.table({"target": b, **more}))

    short = pa.array([[1.0]], pa.list_(pa.float32()))
    for first in (short, [[1]]):
        assert open_source(two(first, [[1e9 + 0.5]])).read(1).target_VT.tolist() == [[1e9 + 0.5]]
    refused(two([[1.0]], [[[1.0]]]), "b.parquet: column 'target' holds list<", "in a.parquet beside it list<")
    path = folder(
        a__parquet=pa.table({"target": [[1.0]], "item_id": [1]}),
        b__parquet=pa.table({"item_id": ["01"], "target": [[2.0]]}),
    )
    assert ids(path) == ["1", "01"]
    path = folder(
        a__parquet=pa.table({"target": [[1.0]], "start": pa.nulls(1)}),
        b__parquet=pa.table({"target": [[2.0]], "start": ["2024-01-01"]}),
    )
    assert open_source(path).read(1).start == np.datetime64("2024-01-01")


def test_a_row_without_a_series_is_named_at_every_door(folder):
    rows = {"target": [[1.0, 2.0], [3.0]], "item_id": ["a", "b"]}
    for target in ([[1.0], None], [[[1.0]], None], [[[1.0]], []]):
        null = pa.table({"target": target, "item_id": ["c", "d"]})
        for form in ("arrow", "parquet"):
            path = folder(**{f"x__{form}": null})
            refused(path, f"x.{form}: row 1: 'target' holds no series", "Drop the row")
    null = pa.table({"target": [[1.0], None], "item_id": ["c", "d"]})
    for form in ("arrow", "parquet"):
        path = folder(**{f"a__{form}": pa.table(rows), f"b__{form}": null})
        refused(path, f"b.{form}: row 1: 'target' holds no series")
    refused(folder(a__jsonl='{"target": [1]}\n{"target": null}\n'), "a.jsonl:2: 'target' is None")
    refused(folder(a__arrow=pa.table({"target": [[1.0], [2.0]], "id": ["x", None]})), "a.arrow: row 1: 'id' is null")
    assert open_source(folder(a__jsonl="[1, 2]\n[]\n")).lengths.tolist() == [2, 0]


def test_lists_of_steps_are_told_of(folder):
    steps = [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]] * 2
    with pytest.warns(UserWarning, match=r"row 0: 'target' is a list of 3 lists of 2, read as 3 variates of 2 steps"):
        open_source(folder(a__arrow=pa.table({"target": steps})))
    with pytest.warns(UserWarning, match="a.jsonl: row 0: .* 3 variates of 1 steps.*transpose"):
        open_source(folder(a__jsonl='{"target": [[1], [2], [3]]}\n'))


def test_rows_that_datasets_chose_before_it_saved(tmp_path, save_to_disk):
    table = pa.table({"target": [[1.0], [2.0, 2.0], [3.0, 3.0, 3.0]], "item_id": ["a", "b", "c"]})
    path = save_to_disk(tmp_path / "set", table.slice(0, 2), table.slice(2))
    whole = open_source(path).fingerprint

    def choose(rows, **columns):
        chosen = pa.table(columns or {"indices": pa.array(rows, pa.uint64())})
        with pa.OSFile(str(path / "indices.arrow"), "wb") as sink, pa.ipc.new_stream(sink, chosen.schema) as writer:
            writer.write_table(chosen)
        state = json.loads((path / "state.json").read_text())
        (path / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "indices.arrow"}]}))

    choose([2, 0, 2])
    source = open_source(path)
    assert ids(path) == ["c", "a", "c"]
    assert source.lengths.tolist() == [3, 1, 3]
    context, future = np.full((1, 2), np.nan), np.full((1, 1), np.nan)
    source.fill_window(0, 2, context, future)
    assert context.tolist() == [[3, 3]] and future.tolist() == [[3]]
    choose([2, 1])
    assert len({whole, source.fingerprint, open_source(path).fingerprint}) == 3
    choose([0, 3])
    refused(path, "the indices name the rows 0 to 3, but there are 3")
    choose([])
    refused(path, "its indices choose no row")
    choose([], a=[1.5], b=[2])
    refused(path, "indices.arrow: one column of row numbers is wanted, it holds a, b")
    (path / "indices.arrow").unlink()
    refused(path, "indices.arrow: the file is missing, but state.json lists it")
    (path / "state.json").write_text('{"_data_files": ["a.arrow"]}')
    refused(path, "state.json: '_data_files' does not list files")


def test_text_tables_at_every_door(tmp_path):
    text = "ds,y\n" + "".join(f"{day},{value}\n" for value, day in enumerate(DAYS))
    (tmp_path / "plain.csv").write_text(text)
    (tmp_path / "zipped.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "wide.csv").write_text(text.replace("ds,y", "date,load"), encoding="utf-16")
    for name in ("plain.csv", "zipped.csv.gz", "wide.csv"):
        path = tmp_path / name
        source = open_source(path)
        assert source.read(0).target_VT.tolist() == [[0, 1, 2]]
        assert ids(path) == [name.partition(".")[0]]
        assert evaluated(path).tasks[0].scores == evaluated(tmp_path / "plain.csv").tasks[0].scores
        assert inspect(path).static == (), "names of a wide table's columns are ours, no static value"
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(text.encode())[:-12])
    refused(tmp_path / "cut.csv.gz", "cut.csv.gz cannot be read as a table: it is cut short or damaged")
    (tmp_path / "comma.csv").write_text(text.replace("01-02,1", "01-02,1,"))
    refused(tmp_path / "comma.csv", "comma.csv cannot be read as a table: row 3: Expected 2 columns, got 3")
