"""Documents are the same from every kind of file, and what is wrong with a file is told with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreloom.data.text.config import TextConfig, TextSource
from foreloom.data.text.documents import find_documents, read_documents

TEXTS = ['One day.\n\nIt was "late", he said.', "Zwei Bücher,\tein Käse 🧀", "x" * 300]


def texts(path: Path, **settings) -> list[str]:
    source = TextSource(path=str(path), **settings)
    return [document.content for file in find_documents(source) for document in read_documents(file, source)]


def in_every_format(folder: Path) -> dict[str, Path]:
    import csv

    paths = {ending: folder / f"t.{ending}" for ending in ("txt", "jsonl", "json", "csv", "tsv", "parquet", "arrow")}
    paths["txt"].write_text("\f".join(TEXTS))
    paths["jsonl"].write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS))
    paths["json"].write_text(json.dumps([{"text": text} for text in TEXTS], indent=1))
    for ending, mark in (("csv", ","), ("tsv", "\t")):
        with paths[ending].open("w", newline="") as file:
            csv.writer(file, delimiter=mark).writerows([["id", "text"], *([1, text] for text in TEXTS)])
    table = pa.table({"text": TEXTS})
    pq.write_table(table, paths["parquet"])
    with pa.ipc.new_stream(str(paths["arrow"]), table.schema) as out:
        out.write_table(table)
    return paths


def test_every_format_gives_the_same_documents(tmp_path):
    for ending, path in in_every_format(tmp_path).items():
        assert texts(path, separator="\f") == TEXTS, ending
    with pa.ipc.new_file(str(tmp_path / "f.arrow"), (table := pa.table({"story": TEXTS})).schema) as out:
        out.write_table(table)
    assert texts(tmp_path / "f.arrow", text_column="story") == TEXTS
    (tmp_path / "lines.json").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    assert texts(tmp_path / "lines.json") == TEXTS
    (tmp_path / "bom.txt").write_bytes("a\r\nb".encode("utf-8-sig"))
    assert texts(tmp_path / "bom.txt") == ["a\r\nb"]


def test_a_folder_by_configuration_and_split(tmp_path):
    for name in ("raw/train-00000-of-00002.jsonl", "raw/train-00001-of-00002.jsonl", "raw/test-00000-of-00001.jsonl",
                 "v1/train.jsonl", ".git/train.jsonl", "raw/dataset_info.json"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}) + "\n")
    assert texts(tmp_path, config="raw") == ["raw/train-00000-of-00002.jsonl", "raw/train-00001-of-00002.jsonl"]
    assert texts(tmp_path, config="raw", split="test") == ["raw/test-00000-of-00001.jsonl"]
    assert texts(tmp_path) == [*texts(tmp_path, config="raw"), "v1/train.jsonl"]
    with pytest.raises(ValueError, match=r"config v1, split test: no documents; it holds .*raw/train"):
        texts(tmp_path, config="v1", split="test")


@pytest.mark.parametrize(
    ("name", "content", "settings", "sentence"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', {}, r"a\.jsonl:2: not valid JSON \(Expecting value at column 10\)"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', {}, r"a\.jsonl:2: '\[1\]' is no JSON object"),
        ("a.jsonl", b'{"id": 1, "body": "a"}\n', {}, r"a\.jsonl:1: there is no column 'text', only id, body; set text"),
        ("a.jsonl", b'{"text": 5}\n', {}, r"a\.jsonl:1: text is '5', no text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', {}, r"a\.jsonl:2: not UTF-8, byte 24 is 0xff"),
        ("a.txt", b"a\nb\n\xe9", {}, r"a\.txt:3: not UTF-8, byte 4 is 0xe9"),
        ("a.json", b'[{"text": "a"},\n{"text" "b"}]', {}, r"a\.json:2: not valid JSON"),
        ("a.csv", b'id,text\n1,a\n2\n', {}, r"a\.csv:3: 1 fields, and the header names 2"),
        ("a.csv", b'id,body\n1,a\n', {}, r"a\.csv:2: there is no column 'text', only id, body"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", {}, r"It is a pointer of Git LFS, not the file"),
        ("a.parquet", b"no", {}, r"a\.parquet: not a Parquet file"),
        ("a.arrow", b"no", {}, r"a\.arrow: not an Arrow file"),
        ("a.docx", b"", {}, r"a\.docx: not a file of text. Accepted: \.txt"),
        ("a.jsonl", b'{"m": "hi"}\n', {"messages_column": "m"}, r":1: m must be a list of messages, .* it is 'hi'"),
        ("a.jsonl", b'{"m": [{"role": "user"}]}', {"messages_column": "m"}, r"message 1 is \"{'role': 'user'}\""),
        ("a.jsonl", b'{"m": [{"role": "u", "content": "a"}]}', {}, r"'m' holds conversations: messages_column=m\."),
        ("a.jsonl", b'{"instruction": "a", "output": "b"}', {}, r"in 'instruction' and answers in 'output'"),
        ("a.jsonl", b'{"prompt": "a", "completion": "b"}', {"messages_column": "messages"}, r'"content": completion'),
        ("a.txt", b"hi", {"messages_column": "m"}, r"a text file holds no conversations"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(tmp_path, name, content, settings, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        texts(tmp_path / name, **settings)


def test_conversations_of_sharegpt_are_read_as_any(tmp_path):
    said = [("system", "Be brief."), ("human", "Who?"), ("gpt", "I."), ("tool", "x")]
    chat = [{"from": role, "value": text} for role, text in said]
    (tmp_path / "s.jsonl").write_text(json.dumps({"conversations": chat}) + "\n")
    (read,) = texts(tmp_path / "s.jsonl", messages_column="conversations")
    assert [tuple(one.values()) for one in read] == [
        ("system", "Be brief."), ("user", "Who?"), ("assistant", "I."), ("tool", "x")
    ]  # fmt: skip
    (tmp_path / "s.jsonl").write_text(json.dumps({"conversations": [{"from": "human", "value": None}]}) + "\n")
    with pytest.raises(ValueError, match="message 1 is"):
        texts(tmp_path / "s.jsonl", messages_column="conversations")


@pytest.mark.parametrize(
    ("sources", "more", "sentence"),
    [
        ([{}], {}, "either a path, on this machine, or a dataset"),
        ([{"path": "a", "dataset": "b"}], {}, "either a path, on this machine, or a dataset"),
        ([{"path": "a", "weight": 1}], {}, "weight has no effect where there is one source"),
        ([{"path": "a", "weight": 1}, {"path": "b"}], {}, "some sources have a weight and some have none"),
        ([{"path": "a", "weight": 1}, {"path": "b", "weight": 1e-6}], {}, "smallest weight is below 0.0001"),
        ([{"path": "a"}], {"loss_on": "all"}, "loss_on has no effect"),
        ([{"path": "a", "messages_column": "m", "separator": "x"}], {}, "no effect where messages_column is given"),
    ],
)
def test_settings_that_contradict_each_other(sources, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        TextConfig(sources=sources, **more)
