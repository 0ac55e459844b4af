"""Files that are damaged, changed or too many, and a cache that is: noticed, mended, or told of in a sentence."""

from __future__ import annotations

import hashlib
import os
import pickle
import resource
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom.data.formats import fingerprint
from foreloom.data.formats.reader import open_source
from foreloom.data.inspect import inspect
from foreloom.data.tables.read import read_rows


@pytest.fixture
def arrow_set(tmp_path):
    """A stream of series with every kind of column, in several batches."""

    def write(name: str = "set.arrow"):
        rng = np.random.default_rng(0)
        length = [int(one) for one in rng.integers(5, 30, 20)]
        table = pa.table(
            {
                "item_id": [f"s{number}" for number in range(20)],
                "start": pa.array(["2024-01-01"] * 20),
                "target": [[None if step % 7 == 3 else float(step) for step in range(one)] for one in length],
                "past_cat__sky": [["x" * (step % 3) for step in range(one)] for one in length],
                "future__price": [[float(step) for step in range(one)] for one in length],
                "timestamp": pa.array([list(np.arange(one).astype("datetime64[us]")) for one in length]),
                "static__kind": ["aa"] * 20,
            }
        )
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
        return tmp_path / name

    return write


def test_flipped_bits_of_an_arrow_file_end_in_sentences(arrow_set) -> None:
    path = arrow_set()
    whole, rng, refused = path.read_bytes(), np.random.default_rng(1), 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            inspect(path, context_length=8, prediction_length=2)
        except ValueError as error:
            assert str(error).startswith(str(path)), repr(error)
            refused += 1
    assert refused > 10


def test_offsets_that_lead_out_of_a_file_are_found_when_it_is_opened(tmp_path) -> None:
    values = pa.array(np.arange(10.0))
    for offsets, name in (([0, 40, 10], "target"), ([0, 4, 2], "target"), ([0, -1, 10], "future__x")):
        bad = pa.Array.from_buffers(
            pa.list_(pa.float64()), 2, [None, pa.py_buffer(np.array(offsets, np.int32))], children=[values]
        )
        columns = {"target": pa.array([[1.0], [2.0]])} | {name: bad}
        with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink:
            batch = pa.record_batch(columns)
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
        with pytest.raises(ValueError, match=r"a\.arrow: (the lists of '\w+' are damaged|not a readable Arrow file)"):
            open_source(tmp_path / "a.arrow")


def test_values_that_take_no_room_are_not_believed(tmp_path) -> None:
    """Nothing, again and again, costs no byte: two hundred may say a thousand million rows."""
    empty = pa.Array.from_buffers(pa.list_(pa.float32(), 0), 10**9, [None], children=[pa.array([], pa.float32())])
    nulls = pa.ListArray.from_arrays(pa.array([0, 10**9], pa.int32()), pa.nulls(10**9))
    path = tmp_path / "a.arrow"
    for column in (pa.nulls(10**9), empty, nulls):
        batch = pa.RecordBatch.from_arrays([column], ["target"])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        assert path.stat().st_size < 500
        with pytest.raises(ValueError, match=r"a\.arrow: 'target' holds more values than the file has room for"):
            open_source(path)


def test_a_parquet_file_that_promises_too_much_ends_in_a_sentence(tmp_path, monkeypatch) -> None:
    def promised(*_, **__):
        raise pa.ArrowMemoryError("malloc of size 2199023255552 failed")

    path = tmp_path / "a.parquet"
    for table in ({"target": [[1.0, 2.0]]}, {"timestamp": np.arange(3).astype("datetime64[D]"), "target": [1.0] * 3}):
        pq.write_table(pa.table(table), path)
        monkeypatch.setattr(pq.ParquetFile, "read", promised)
        monkeypatch.setattr(pq.ParquetFile, "iter_batches", promised)
        with pytest.raises(ValueError, match=r"a\.parquet.*malloc of size"):
            open_source(path)
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as a table: malloc of size"):
        read_rows(path)


@pytest.mark.parametrize("most", [2**40, 100])
def test_a_value_changed_anywhere_changes_the_fingerprint(arrow_set, tmp_path, monkeypatch, most) -> None:
    """Whether all bytes are read or, of large data, blocks: a copy elsewhere, of another date, is the same data."""
    monkeypatch.setattr(fingerprint, "WHOLE_UP_TO", most)
    monkeypatch.setattr(fingerprint, "_REMEMBERED_FROM", 0)
    monkeypatch.setattr(fingerprint, "_SETTLED_SECONDS", -1)
    path = arrow_set()
    first = open_source(path)
    (tmp_path / "copy").mkdir()
    copy = shutil.copyfile(path, tmp_path / "copy" / path.name)
    assert open_source(copy).fingerprint == first.fingerprint
    assert list(first.files) == ["set.arrow"]
    content = bytearray(copy.read_bytes())
    for place in np.linspace(0, len(content) - 1, 9).astype(int):
        changed = bytearray(content)
        changed[place] ^= 1
        copy.write_bytes(changed)
        os.utime(copy, ns=(1, 1))
        assert fingerprint.digests([copy]) != first.files
    assert (len(list((tmp_path / "cache" / "digests").glob("*"))) > 0) == (most > 100)


def test_the_checksum_is_that_of_sha256sum(arrow_set, tmp_path) -> None:
    path = arrow_set()
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert inspect(path, with_checksum=True).checksum == expected
    assert inspect(path).checksum is None
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    shutil.move(path, tmp_path / "folder" / "deep" / "set.arrow")
    listed = hashlib.sha256(f"{expected}  deep/set.arrow\n".encode()).hexdigest()
    assert fingerprint.checksum(tmp_path / "folder") == listed


def test_a_cached_file_that_was_cut_is_made_anew(tmp_path, cache_folder) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[1, 2, 3]\n" * 50)
    open_source(path)
    (cached,) = cache_folder.glob("*.arrow")
    whole = cached.read_bytes()
    for num_bytes in (len(whole) // 2, len(whole) - 1, 0):
        cached.write_bytes(whole[:num_bytes])
        assert open_source(path).lengths.tolist() == [3] * 50
        assert cached.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_told_of_before_the_work(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "a.jsonl").write_text("nonsense\n")
    with pytest.raises(ValueError, match="file/cache: the cache of converted data cannot be written .* FORELOOM_CACHE"):
        open_source(tmp_path / "a.jsonl")


def test_many_mapped_files_raise_the_limit_or_say_how(tmp_path, save_to_disk) -> None:
    save_to_disk(tmp_path / "set", *[pa.table({"target": [[float(number)]]}) for number in range(300)])
    code = (
        "import resource, sys\n"
        "from foreloom.data.formats.reader import open_source\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, int(sys.argv[2])))\n"
        "print(len(open_source(sys.argv[1])))\n"
    )

    def run(hard: int):
        command = [sys.executable, "-c", code, str(tmp_path / "set"), str(hard)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert run(min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])).stdout == "300\n"
    assert "files are open, and this system allows 200 (ulimit -n). Raise the limit" in run(200).stderr


def test_pickles_do_not_ask_for_more_memory_than_they_fill(tmp_path) -> None:
    path = tmp_path / "a.pkl"
    size = b"\x8a\x05\x00\x1a\x71\x18\x02\x85R."  # 9e9, a call, the end
    for name in (b"builtins\nbytearray", b"__builtin__\nbytes", b"__builtin__\nbytearray"):
        path.write_bytes(b"\x80\x02c" + name + b"\n" + size)
        with pytest.raises(ValueError, match="the pickle holds a byte"):
            open_source(path)
    path.write_bytes(pickle.dumps([np.frombuffer(bytearray(8)), [1.0]], protocol=5))
    assert open_source(path).lengths.tolist() == [1, 1]
    deep: list = [1.0]
    for _ in range(12):
        deep = [deep] * 10
    wide = [[[1.0] * 2**14] * 2**14]
    for content, sentence in ((deep, "lists 13 deep"), (wide, "holds 268,435,456 numbers")):
        path.write_bytes(pickle.dumps([content] if content is deep else content))
        with pytest.raises(ValueError, match=sentence):
            open_source(path)


def test_a_file_cut_short_under_a_run_leaves_a_trace(arrow_set) -> None:
    path = arrow_set()
    code = (
        "import faulthandler, os, sys\n"
        "from foreloom.cli import main\n"
        "from foreloom.data.formats.reader import open_source\n"
        "sys.argv = ['foreloom', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "source = open_source(sys.orig_argv[-1])\n"
        "os.truncate(sys.orig_argv[-1], 0)\n"
        "source.read(0)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert found.returncode < 0
    assert "Fatal Python error: Bus error" in found.stderr and "in read" in found.stderr
