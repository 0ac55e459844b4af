"""JSON documents, .npy and pickles give back what was written; pickles run nothing."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foreloom.data.formats.reader import open_source

ROWS = [[1.0, 2.0, 3.0], [4.0, float("nan"), 6.0, 7.0], [8.0]]


def values(path) -> list[list]:
    """Targets of all series, NaN as None; a series of one variate as a flat list."""
    source = open_source(path)
    assert source.lengths.tolist() == [source.read(item).length for item in range(len(source))]
    assert source.num_targets.tolist() == [len(source.read(item).target_VT) for item in range(len(source))]
    found = []
    for item in range(len(source)):
        rows = [[None if v != v else v for v in row] for row in source.read(item).target_VT.tolist()]
        found.append(rows[0] if len(rows) == 1 else rows)
    return found


def plain(rows=ROWS) -> list[list]:
    return [[None if v != v else v for v in row] for row in rows]


def refused(path, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_source(path)
    for word in (str(path), *words):
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(plain()),
        json.dumps(plain(), indent=1),
        json.dumps([{"sequence": row} for row in plain()]),
        json.dumps([{"target": row, "item_id": str(n)} for n, row in enumerate(plain())], indent=2),
        "\n".join(json.dumps(row) for row in plain()),
        "\n".join(json.dumps({"sequence": row, "other": 1}) for row in plain()) + "\n\n",
    ],
    ids=["lists", "lists over lines", "objects", "objects over lines", "lines of lists", "lines of objects"],
)
def test_json_as_people_write_it(tmp_path, text) -> None:
    (tmp_path / "a.json").write_text(text)
    assert values(tmp_path / "a.json") == plain()


def test_json_documents_of_one_series(tmp_path) -> None:
    for text in ("[1, 2, null]", "[1, 2,\n null]\n", '{"target": [1, 2, null]}', '{\n "sequence": [1, 2, null]\n}'):
        path = tmp_path / "a.json"
        path.unlink(missing_ok=True)
        path.write_text(text)
        assert values(path) == [[1.0, 2.0, None]]


def test_lines_of_lists(tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text("[1, 2, null]\n[[1, 2], [3, 4]]\n[123456789012345678901234567890, 0]\n")
    assert values(tmp_path / "a.jsonl") == [[1.0, 2.0, None], [[1.0, 2.0], [3.0, 4.0]], [1.2345678901234568e29, 0.0]]
    assert open_source(tmp_path / "a.jsonl").read(1).item_id == "1"


def test_bad_json(tmp_path) -> None:
    def refuse(name: str, text: str, *words: str) -> None:
        (tmp_path / name).write_text(text)
        refused(tmp_path / name, *words)

    refuse("a.json", "[[1, 2],\n [3,\n", "a.json:3: not JSON")
    refuse("b.json", "[]", "is empty, it has no series")
    refuse("c.json", '[{"values": [1]}]', "c.json: series 0: no series found")
    refuse("d.json", '[[1, 2], [3, "x"]]', "d.json: series 1: 'sequence' holds 'x' at step 1")
    refuse("e.jsonl", f"[1, 2]\n[1, 1{'0' * 400}]\n", "e.jsonl:2: 'sequence' holds an integer of more than 308 digits")
    refuse("f.jsonl", "[1]\n5\n", "f.jsonl:2: no series found")
    for number, (line, sentence) in enumerate(
        (
            ('{"target": [1], "start": 5}', "start 5 is not a time"),
            ('{"target": [1], "start": "now"}', "start 'now' is not a time"),
            (
                '{"target": [1], "timestamp": "2024-01-01"}',
                "timestamp is '2024-01-01'; a list with a time for each step",
            ),
            ('{"target": [1], "timestamp": [null]}', "timestamp is null at step 0"),
            ('{"target": [1], "item_id": null}', "'item_id' is None; a name, or a number, is wanted"),
            ('{"target": [1], "static__s": [1]}', "'static__s' is [1]; one value"),
            ('{"target": [1], "past_cat__x": [["a"]]}', "'past_cat__x' holds ['a'] at step 0, a label"),
            ('{"target": [1], "past__x": [1], "past_cat__x": ["a"]}', "past covariate 'x' is there twice"),
            ('{"target": 1.5}', "'target' is 1.5, neither a list of numbers"),
            ('{"target": ' + "[" * 900 + "]" * 900 + "}", "'target' holds lists 899 deep"),
            ('{"target": [[[1]]]}', "'target' holds lists 3 deep"),
            ("[" * 100_000, "not JSON (it is nested too deep)"),
        )
    ):
        refuse(f"line{number}.jsonl", f"[1]\n{line}\n", f"line{number}.jsonl:2: {sentence}")
    refuse("deep.json", "[" * 100_000, "deep.json: not JSON (it is nested too deep)")
    static = '{"target": [1], "static__s": %s}\n'
    refuse(
        "s.jsonl", static % 1 + static % '"a"', "s.jsonl: static__s holds values of several kinds", "'a' of series '1'"
    )
    refuse("g.json", "7", "g.json: series 0: no series found")
    (tmp_path / "h.jsonl").write_bytes(b"[1]\n[\xff]\n")
    refused(tmp_path / "h.jsonl", "h.jsonl:2: not JSON")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint32", "bool", ">f4"])
def test_npy_rows(tmp_path, dtype) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    assert values(tmp_path / "a.npy") == array.astype(float).tolist()
    short = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    assert open_source(tmp_path / "a.npy").read(0).target_VT.dtype == (np.float32 if short else np.float64)


def test_npy_of_other_axes_and_of_objects(tmp_path) -> None:
    np.save(tmp_path / "one.npy", np.arange(4.0))
    assert values(tmp_path / "one.npy") == [[0, 1, 2, 3]]
    np.save(tmp_path / "three.npy", np.arange(8.0).reshape(2, 2, 2))
    assert values(tmp_path / "three.npy") == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    ragged = np.empty(3, dtype=object)
    ragged[:] = [np.array([1.0, 2.0]), [3, 4, None], np.arange(6).reshape(2, 3)]
    np.save(tmp_path / "ragged.npy", ragged, allow_pickle=True)
    assert values(tmp_path / "ragged.npy") == [[1, 2], [3, 4, None], [[0, 1, 2], [3, 4, 5]]]
    np.save(tmp_path / "even.npy", np.array([[1, None, 3], [4, 5, 6]], dtype=object), allow_pickle=True)
    assert values(tmp_path / "even.npy") == [[1, None, 3], [4, 5, 6]]


def test_bad_npy(tmp_path) -> None:
    def refuse(name: str, array: np.ndarray, *words: str) -> None:
        np.save(tmp_path / name, array, allow_pickle=True)
        refused(tmp_path / name, *words)

    refuse("text.npy", np.array([["a", "b"]]), "the array holds <U1 on 2 axes")
    refuse("complex.npy", np.array([[1j]]), "the array holds complex128")
    refuse("records.npy", np.zeros(2, dtype=[("a", "f4")]), "the array holds [('a', '<f4')]")
    refuse("deep.npy", np.zeros((1, 1, 1, 1)), "float64 on 4 axes")
    refuse("code.npy", np.array([Path("x")], dtype=object), "the pickle holds a pathlib")
    refuse("empty.npy", np.zeros((0, 5)), "is empty, it has no series")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "deep.npy").read_bytes()[:40])
    refused(tmp_path / "cut.npy", "not a readable .npy file")
    (tmp_path / "no.npy").write_bytes(b"nothing of the kind")
    refused(tmp_path / "no.npy", "not a readable .npy file")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("suffix", ["pkl", "pickle"])
def test_pickles_of_every_protocol(tmp_path, protocol, suffix) -> None:
    rows = [
        [1, 2.5, None],
        (3, 4),
        np.arange(3, dtype=np.int16),
        np.array([[1.5, 2.5], [3.5, np.nan]], dtype=np.float32),
        [np.float64(7), np.int64(8), np.float32(9)],
        {"sequence": np.arange(2), "static__kind": "x"},
        np.asfortranarray(np.array([[1.0, 2.0], [3.0, 4.0]])),
        np.arange(4.0)[::2],
    ]
    expected = [
        [1, 2.5, None],
        [3, 4],
        [0, 1, 2],
        [[1.5, 2.5], [3.5, None]],
        [7, 8, 9],
        [0, 1],
        [[1, 2], [3, 4]],
        [0, 2],
    ]
    (tmp_path / f"list.{suffix}").write_bytes(pickle.dumps(rows, protocol=protocol))
    assert values(tmp_path / f"list.{suffix}") == expected
    with (tmp_path / f"row.{suffix}").open("wb") as file:
        for row in rows[:3]:
            pickle.dump(row, file, protocol=protocol)
    assert values(tmp_path / f"row.{suffix}") == expected[:3]


class Harmful:
    """Unpickled without care, it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


class ByGetattr:
    def __reduce__(self):
        return (getattr, (np.dtype, "__new__"))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_runs_nothing(tmp_path, protocol) -> None:
    path, victim = tmp_path / "bad.pkl", tmp_path / "victim"
    for content in ([Harmful(victim)], {"target": [1.0], "item_id": Harmful(victim)}):
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        refused(path, f"the pickle holds a {os.system.__module__}.system", "would run code", ".jsonl")
    path.write_bytes(pickle.dumps([ByGetattr()], protocol=protocol))
    refused(path, "getattr")
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(victim).encode() + b"'\ntR.")
    refused(path, "the pickle holds a os.system")
    assert not victim.exists()


class Forged:
    """Reduces to whatever it is made of."""

    def __init__(self, *reduced: Any):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def test_a_pickle_forges_no_memory(tmp_path) -> None:
    """numpy reads these without complaint: objects at addresses of the file's choice, elements beyond the bytes."""
    make, scalar = np.array(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    address, plain = b"A" * 8, np.dtype("f8")

    def array(dtype: Any, content: Any = address, shape: tuple = (1,)) -> Forged:
        return Forged(make, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, content))

    def dtype(name: Any, fields: Any) -> Forged:
        return Forged(np.dtype, (name, False, True), (3, "|", None, ("a",), fields, 8, 1, 0))

    field_of_objects = dtype("V8", {"a": (np.dtype("O"), 0)})
    flag_less = Forged(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
    path = tmp_path / "forged.pkl"
    for content in (
        Forged(np.ndarray, ((1,), np.dtype("O"), address)),
        Forged(scalar, (field_of_objects, address)),
        Forged(make, (np.ndarray, (0,), b"b"), "no state"),
        Forged(np.dtype, ("f8", False, True), (3, "no order")),
        *(
            array(one)
            for one in (flag_less, field_of_objects, dtype("V8", {"a": (plain, 2**40)}), dtype([("a", "O")], {}))
        ),
        *(array(plain, shape=shape) for shape in ((2**40,), (-1, -1), (1.0,), (2**32, 2**32))),
        array(np.dtype("O"), [], (1,)),
        array(plain, [1.0], (1,)),
    ):
        path.write_bytes(pickle.dumps([content], protocol=4))
        refused(path, "forged.pkl: ")


def claims(path: Path, shape: tuple, descr: str = "<f8") -> None:
    """A .npy file of one number that says it has another shape."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8))


def test_a_few_bytes_take_no_memory(tmp_path) -> None:
    """Numbers that a file names, and the rows of arrays that hold nothing, are no measure of what it holds."""
    path, make = tmp_path / "a.pkl", np.array(0).__reduce__()[0]
    far = [b"r" + (2**28).to_bytes(4, "little"), b"p268435456\n", b"I1\ncbuiltins\nbytearray\np268435456\n00"]
    for content, words in (
        *((b"]" + put + b".", "place 268,435,456 of its memo, in") for put in far),
        (b"\x80\x02]X\x02\x00\x00\x00r.q\x00r\x00\x00\x00\xffa.", "place 4,278,190,080 of its memo"),
        (pickle.dumps([{"item_id": 10**5000, "target": [1.0]}]), "an integer of 2,077 bytes"),
        (pickle.dumps([{"target": [1.0], "static__x": 10**5000}]), "an integer of 2,077 bytes"),
        *((code + (2**34).to_bytes(8, "little") + b"ab.", "not a readable pickle") for code in (b"\x8e", b"\x96")),
        (b"\x80\x02\x8b\xff\xff\xff\x7fab.", "an integer of 2,147,483,647 bytes"),
    ):
        path.write_bytes(content)
        refused(path, words)
    for shape, dtype, words in (
        ((10**12, 0), "f8", "an array of shape (1000000000000, 0) holds nothing"),
        ((0, 10**12), "f8", "an array of shape (0, 1000000000000) holds nothing"),
        ((10**12,), "S0", "numpy dtype 'S0'"),
    ):
        array = Forged(make, (np.ndarray, (0,), b"b"), (1, shape, np.dtype(dtype), False, b""))
        path.write_bytes(pickle.dumps([{"target": [1.0], "past_cat__x": array}]))
        refused(path, words)
    path.write_bytes(pickle.dumps([*range(999), 2**80]))
    assert open_source(path).lengths.tolist() == [1000]
    for shape in ((10**12,), (10**30,), (10**12, 0), (10**12, 10**12), (10**30, 0), (2**32, 2**32), (-1,)):
        claims(tmp_path / "a.npy", shape)
        refused(tmp_path / "a.npy", "not a readable .npy file")


def test_pickled_functions_cannot_be_changed(tmp_path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02cnumpy._core.multiarray\nscalar\n}X\x05\x00\x00\x00_makeX\x01\x00\x00\x00xsb.")
    refused(path, "the pickle holds a state for a function")
    path.write_bytes(pickle.dumps([[np.float64(1), np.float64(2)], np.array([True, False])]))
    assert values(path) == [[1, 2], [1, 0]]


def test_pickles_of_other_classes_and_damaged_ones(tmp_path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(pd.Series([1.0, 2.0])))
    refused(path, "the pickle holds a pandas.")
    whole = pickle.dumps([[1.0] * 50, np.arange(50.0)])
    for num_bytes in range(1, len(whole), 9):
        path.write_bytes(whole[:num_bytes])
        refused(path)
    path.write_bytes(b"this is text")
    refused(path, "not a readable pickle")
    path.write_bytes(b"")
    refused(path, "is empty, it has no series")
    path.write_bytes(pickle.dumps(["a", "b"]))
    refused(path, "series 0: 'sequence' holds 'a' at step 0")
    path.write_bytes(pickle.dumps([[1.0], "b"]))
    refused(path, "series 1: no series found")
