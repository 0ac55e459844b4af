"""Bad data get a sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom.data.formats.reader import open_source


def refused(path, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_source(path)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_missing_path(tmp_path) -> None:
    refused(tmp_path / "nowhere", "nowhere: there is no such file or folder")


def test_not_a_data_set(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path / "notes.txt", "notes.txt: not a data set", "save_to_disk", ".parquet", ".jsonl", ".csv")
    refused(tmp_path, "it holds notes.txt", "Accepted: a save_to_disk folder")


def test_a_tree_without_data(tmp_path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "readme.md").write_text("x")
    refused(tmp_path, str(tmp_path), "not a data set, it holds ", "inner")
    (tmp_path / "inner" / "bad.jsonl").write_text("[1\n")
    (tmp_path / "good.jsonl").write_text("[1]\n")
    refused(tmp_path, "inner/bad.jsonl:1: not JSON")


def test_empty_sets(tmp_path, save_to_disk) -> None:
    empty = pa.table({"target": pa.array([], pa.list_(pa.float32()))})
    refused(save_to_disk(tmp_path / "hf", empty), "is empty, it has no series")
    pq.write_table(empty, tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "a.parquet", "is empty")
    (tmp_path / "a.jsonl").write_text("\n")
    refused(tmp_path / "a.jsonl", "is empty")
    (tmp_path / "a.csv").write_text("ds,y\n")
    refused(tmp_path / "a.csv", "a.csv has no rows")
    (tmp_path / "a.arrow").write_bytes(b"")
    refused(tmp_path / "a.arrow", "a.arrow: the file is empty")


def test_damaged_files(tmp_path, save_to_disk) -> None:
    folder = save_to_disk(tmp_path / "hf", pa.table({"target": [[1.0] * 1000] * 20}))
    (file,) = folder.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:5000])
    refused(folder, file.name, "not a readable Arrow file", "cut short")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    refused(tmp_path / "a.parquet", "a.parquet: not a readable Parquet file")
    file.unlink()
    refused(folder, file.name, "state.json lists it")


def test_files_with_the_name_of_another_kind(tmp_path) -> None:
    """As pyarrow's users write them: a Parquet file called .arrow, a table of rows in Arrow."""
    rows = pa.table({"item_id": ["a", "a"], "timestamp": ["2024-01-01", "2024-01-02"], "target": [1.0, 2.0]})
    pq.write_table(rows, tmp_path / "m4.arrow")
    refused(tmp_path / "m4.arrow", "not a readable Arrow file", "It is a Parquet file: name it .parquet.")
    (tmp_path / "lfs.arrow").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(tmp_path / "lfs.arrow", "It is a pointer of Git LFS", "git lfs pull")
    (tmp_path / "page.parquet").write_text("<!doctype html><html></html>")
    refused(tmp_path / "page.parquet", "It is a web page")
    with pa.ipc.new_file(str(tmp_path / "rows.arrow"), rows.schema) as out:
        out.write_table(rows)
    refused(tmp_path / "rows.arrow", "A table with one observation a row is read from .parquet or .csv")


def test_no_target(tmp_path, save_to_disk) -> None:
    folder = save_to_disk(tmp_path / "hf", pa.table({"value": [[1.0]], "id": ["a"]}))
    refused(folder, "no column 'target'", "value, id")
    (tmp_path / "a.csv").write_text("when,amount\n1,2\n")
    refused(tmp_path / "a.csv", "columns when, amount are neither a long table", "ds and y")
    (tmp_path / "typo.csv").write_text("item_id,timestamp,tarhet\na,2024-01-01,2\n")
    refused(tmp_path / "typo.csv", "'item_id' names the series of a long table", "Is it 'tarhet'? Rename it")
    (tmp_path / "amount.csv").write_text("id,ds,amount\n1,2024-01-01,2\n")
    refused(tmp_path / "amount.csv", "needs a column target", "the columns are id, ds, amount", "Rename the one")


@pytest.mark.parametrize(("text", "name"), [("date;load\n2024-01-01;1,5\n", "semicolons"), ("date\ta\n1\t2\n", "tabs")])
def test_other_separators_are_named(tmp_path, text, name) -> None:
    (tmp_path / "a.csv").write_text(text)
    refused(tmp_path / "a.csv", f"parted by {name}", "save it with commas")


def test_text_in_numbers(tmp_path, save_to_disk) -> None:
    refused(
        save_to_disk(tmp_path / "hf", pa.table({"target": [["a", "b"]]})), "hf: row 0: column 'target' holds text ('a')"
    )
    (tmp_path / "a.csv").write_text("unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,oops\n")
    refused(tmp_path / "a.csv", "a.csv: column 'y' holds 'oops' in row 3 (series 'a')")
    (tmp_path / "wide.csv").write_text("date,p,q\n2024-01-01,1,2\n2024-01-02,3,four\n")
    refused(tmp_path / "wide.csv", "wide.csv: column 'q' holds 'four' in row 3")
    (tmp_path / "a.jsonl").write_text('{"target": [1, 2]}\n{"target": [1, "two"]}\n')
    refused(tmp_path / "a.jsonl", "a.jsonl:2: 'target' holds 'two' at step 1")
    (tmp_path / "b.jsonl").write_text('{"target": [1, 2]}\n{"target": ["1", "2"]}\n')
    refused(tmp_path / "b.jsonl", "b.jsonl:2: 'target' holds '1' at step 0")
    (tmp_path / "c.jsonl").write_text('{"target": [1, 2]}\n{"target": [1, 2\n')
    refused(tmp_path / "c.jsonl", "c.jsonl:2: not JSON")


def test_text_in_one_of_several_tables(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("unique_id,ds,y\na,2024-01-01,1\n")
    (tmp_path / "b.csv").write_text("unique_id,ds,y\na,2024-01-02,1\na,2024-01-03,oops\n")
    refused(tmp_path, "b.csv: column 'y' holds 'oops' in row 3 (series 'a')")
    (tmp_path / "b.csv").write_text("unique_id,ds,y\na,2024-01-02,1\na,2024-01-01,2\n")
    refused(tmp_path, "b.csv: series 'a' has 2024-01-01 00:00:00 twice", "(row 2 of", "a.csv and row 3)")


def test_columns_that_hold_no_lists_of_numbers(tmp_path, save_to_disk) -> None:
    refused(save_to_disk(tmp_path / "scalar", pa.table({"target": [1.0, 2.0]})), "'target' holds double", "time column")
    refused(
        save_to_disk(tmp_path / "cube", pa.table({"target": [[[[1.0]]]]})), "'target' holds list<", "a list of numbers"
    )
    table = pa.table({"target": [[1.0]], "past__x": [0.5]})
    refused(save_to_disk(tmp_path / "covariate", table), "'past__x' holds double; a list of numbers a row")
    refused(save_to_disk(tmp_path / "dicts", pa.table({"target": [[{"a": 1}]]})), "'target' holds struct<", "numbers")


def test_times(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("unique_id,ds,y\na,2024-01-01,1\na,soon,2\n")
    refused(tmp_path / "a.csv", "a.csv: column 'ds' holds 'soon' in row 3, which is not a time")
    (tmp_path / "b.csv").write_text("unique_id,ds,y\na,2024-01-01,1\nb,2024-01-01,1\na,2024-01-01,2\n")
    refused(tmp_path / "b.csv", "b.csv: series 'a' has 2024-01-01 00:00:00 twice (row 2 and row 4)")
    (tmp_path / "c.csv").write_text("unique_id,ds,y\na,2024-01-01,1\na,,2\n")
    refused(tmp_path / "c.csv", "c.csv: column 'ds' is empty in row 3")


@pytest.mark.parametrize("form", ["hf", "parquet"])
def test_ragged_variates(tmp_path, save_to_disk, form) -> None:
    rows = [[[1.0, 2.0], [3.0, 4.0]]] * 3 + [[[1.0, 2.0], [3.0]]]
    table = pa.table({"target": rows})
    path = where = tmp_path / "set.parquet"
    if form == "hf":
        path = save_to_disk(tmp_path / "set", table, batch_rows=2)
        where = path / "data-00000-of-00001.arrow"
    else:
        pq.write_table(table, path)
    refused(path, f"{where}: row 3: the variates of 'target' differ in length")


def test_ragged_variates_of_a_line(tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text('{"target": [[1, 2], [3]]}\n')
    refused(tmp_path / "a.jsonl", "a.jsonl:1: the variates of 'target' differ in length")


def test_covariate_of_another_length(tmp_path, save_to_disk) -> None:
    table = pa.table({"target": [[1.0, 2.0], [3.0, 4.0]], "past__x": [[1.0, 2.0], [3.0, 4.0, 5.0]]})
    refused(save_to_disk(tmp_path / "set", table), "row 1: covariate 'past__x' has 3 steps, the target 2")
    (tmp_path / "a.jsonl").write_text('{"target": [1, 2], "past__x": [1]}\n')
    refused(tmp_path / "a.jsonl", "a.jsonl:1: covariate 'past__x' has 1 steps, the target 2")


def test_files_of_different_columns(tmp_path, save_to_disk) -> None:
    one = pa.table({"target": [[1.0]]})
    folder = save_to_disk(tmp_path / "set", one, one.append_column("id", pa.array(["a"])))
    refused(folder, "data-00001-of-00002.arrow", "differ from those of data-00000-of-00002.arrow")


def test_start_that_is_no_time(tmp_path, save_to_disk) -> None:
    source = open_source(save_to_disk(tmp_path / "set", pa.table({"target": [[1.0]], "start": ["soon"]})))
    with pytest.raises(ValueError, match="row 0: start 'soon' is not a time"):
        source.read(0)
    assert np.array_equal(source.lengths, [1])


def test_a_series_may_be_called_na_and_none_may_be_nameless(tmp_path) -> None:
    table = tmp_path / "countries.csv"
    table.write_text("item_id,timestamp,target,label\nNA,2024-01-01,1,x\nnull,2024-01-01,2,NA\nDE,2024-01-01,NA,y\n")
    source = open_source(table)
    assert [source.read(i).item_id for i in range(3)] == ["NA", "null", "DE"]
    assert np.isnan(source.read(2).target_VT[0, 0])
    table.write_text("item_id,timestamp,target\nDE,2024-01-01,1\n,2024-01-02,2\n")
    refused(table, "countries.csv: column 'item_id' is empty in row 3.")
