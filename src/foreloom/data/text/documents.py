"""Documents of files: text, JSON lines, JSON, tables and Arrow, one after another, each with its place."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from foreloom.data.mistaken import what_it_is
from foreloom.data.text.config import TextSource

ENDINGS = (".txt", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""Of files found in a folder."""
_PLAIN = (".txt", ".md", ".rst")
"""Of files that are text as they are; in a folder, the last two are about its data and not of them."""
_DESCRIPTIONS = ("state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_QUESTIONS = ("prompt", "instruction", "question", "input", "query")
_ANSWERS = ("completion", "output", "response", "answer", "chosen")
"""Columns that data sets to fine-tune by have in place of conversations."""
Record = Mapping[str, Any]


class Document(NamedTuple):
    """A text, or a conversation."""

    content: str | list[dict[str, Any]]
    place: str
    """For people: `stories.jsonl:12`."""


def find_documents(source: TextSource) -> list[Path]:
    """The files of a source in order of their names. ValueError, with what there is, where none is found."""
    folder = Path(source.path).expanduser() if source.path is not None else _download(source)
    if folder.is_file():
        if folder.suffix not in (*ENDINGS, *_PLAIN):
            raise ValueError(f"{folder}: not a file of text. Accepted: {', '.join(ENDINGS)}.")
        return [folder]
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such file or folder. Relative paths start at {Path.cwd()}.")
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in ENDINGS and path.name not in _DESCRIPTIONS
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    names = {path: path.relative_to(folder).as_posix() for path in files}
    if source.config is not None:
        files = [path for path in files if source.config in names[path].split("/")[:-1]]
    split = source.split or "train"
    of_split = [path for path in files if re.search(rf"(^|[/_.-]){re.escape(split)}([/_.-]|$)", names[path])]
    if of_split or source.split is not None:
        files = of_split
    if not files:
        wanted = "".join(
            f", {word} {value}" for word, value in (("config", source.config), ("split", source.split)) if value
        )
        holds = ", ".join(list(names.values())[:8]) or "no file of text"
        raise ValueError(f"{source.name}{wanted}: no documents; it holds {holds}. Accepted: {', '.join(ENDINGS)}.")
    return files


def _download(source: TextSource) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    below = f"*{source.config}*/" if source.config else ""
    try:
        return Path(
            snapshot_download(
                str(source.dataset), repo_type="dataset", allow_patterns=[f"{below}*{ending}" for ending in ENDINGS]
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{source.dataset} is no data set that the Hugging Face hub or its cache can give (a gated one needs "
            f"HF_TOKEN): {' '.join(str(error).split())}"
        ) from error


def read_documents(path: Path, source: TextSource) -> Iterator[Document]:
    """The documents of a file, empty ones too. ValueError names file, line or row where something is not as it says."""
    if path.suffix in _PLAIN:
        text = _text(path)
        parts = text.split(source.separator) if source.separator else [text]
        if source.messages_column is not None:
            raise ValueError(f"{path}: a text file holds no conversations; give .jsonl, .json, .parquet or .arrow.")
        yield from (Document(part, f"{path}, document {number}") for number, part in enumerate(parts, start=1))
        return
    column = source.messages_column or source.text_column
    for place, record in _READERS[path.suffix](path):
        if column not in record:
            setting = "messages_column" if source.messages_column else "text_column"
            raise ValueError(
                f"{place}: there is no column {column!r}, only {', '.join(map(str, record)) or 'nothing'}; set "
                f"{setting}.{_other_layout(record, source)}"
            )
        value = record[column]
        if source.messages_column is not None:
            yield Document(_conversation(value, place, column), place)
        elif value is None or isinstance(value, str):
            yield Document(value or "", place)
        else:
            raise ValueError(f"{place}: {column} is {str(value)[:40]!r}, no text; name the column of the text.")


def _other_layout(record: Record, source: TextSource) -> str:
    """What to do with a record that is neither a text nor a conversation in the named column, but looks like one."""
    chats = [name for name, value in record.items() if isinstance(value, list) and value and _is_message(value[0])]
    if chats:
        return f" {chats[0]!r} holds conversations: messages_column={chats[0]}."
    asked = next((name for name in _QUESTIONS if isinstance(record.get(name), str)), None)
    told = next((name for name in _ANSWERS if isinstance(record.get(name), str)), None)
    if asked is None or told is None:
        return ""
    return (
        f" Questions in {asked!r} and answers in {told!r} are learned as conversations: write each line as "
        f'{{"messages": [{{"role": "user", "content": {asked}}}, {{"role": "assistant", "content": {told}}}]}}, and '
        "set messages_column=messages."
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def _as_message(message: Any) -> Any:
    """ShareGPT's {from, value} as {role, content}; anything else as it is."""
    if isinstance(message, Mapping) and {"from", "value"} <= message.keys() and "role" not in message:
        rest = {key: value for key, value in message.items() if key not in ("from", "value")}
        return {"role": _SHAREGPT_ROLES.get(message["from"], message["from"]), "content": message["value"], **rest}
    return message


def _conversation(value: Any, place: str, column: str) -> list[dict[str, Any]]:
    wanted = f"{place}: {column} must be a list of messages, each with role and content"
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{wanted}; it is {str(value)[:40]!r}.")
    messages = [_as_message(message) for message in value]
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise ValueError(f"{wanted}; message {number} is {str(message)[:60]!r}.")
    return [dict(message) for message in messages]


def _text(path: Path) -> str:
    """Of a UTF-8 file, its line ends as they are."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: not UTF-8, byte {error.start:,} is 0x{content[error.start]:02x}; convert the file "
            "(iconv -t utf-8)."
        ) from None


def _lines(path: Path) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _object(line, f"{path}:{number}")


def _object(line: str, place: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not valid JSON ({error.msg} at column {error.colno}).") from None
    if not isinstance(record, Mapping):
        raise ValueError(f"{place}: {line[:40]!r} is no JSON object; a document is one, with its text in a column.")
    return record


def _json(path: Path) -> Iterator[tuple[str, Record]]:
    """A list of objects; or, as many tools write .json, one a line."""
    text = _text(path)
    if not text.lstrip().startswith("["):
        yield from _lines(path)
        return
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not valid JSON ({error.msg}).") from None
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise ValueError(f"{path}, entry {number}: {str(record)[:40]!r} is no JSON object.")
        yield f"{path}, entry {number}", record


def _table(path: Path) -> Iterator[tuple[str, Record]]:
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(
        _text(path).splitlines(keepends=True), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True
    )
    header: list[str] | None = None
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{path}:{line}: not a row of a table ({error}). Correct the line.") from None
        if row is None:
            return
        if header is None:
            header = row
        elif row:
            if len(row) != len(header):
                raise ValueError(
                    f"{path}:{line}: {len(row)} fields, and the header names {len(header)}. Correct the line; text "
                    "with a comma in it stands in quotes."
                )
            yield f"{path}:{line}", dict(zip(header, row, strict=True))


def _parquet(path: Path) -> Iterator[tuple[str, Record]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file ({error}). {what_it_is(path, 'Write it again.')}") from None
    yield from _batches(path, file.iter_batches())


def _arrow(path: Path) -> Iterator[tuple[str, Record]]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as mapped:
        try:
            file = pa.ipc.open_file(mapped)
            batches: Any = (file.get_batch(number) for number in range(file.num_record_batches))
        except pa.ArrowInvalid:
            mapped.seek(0)
            try:
                batches = pa.ipc.open_stream(mapped)
            except pa.ArrowInvalid as error:
                what = what_it_is(path, "Write it again.")
                raise ValueError(f"{path}: not an Arrow file ({error}). {what}") from None
        yield from _batches(path, batches)


def _batches(path: Path, batches: Any) -> Iterator[tuple[str, Record]]:
    row = 0
    for batch in batches:
        for record in batch.to_pylist():
            row += 1
            yield f"{path}, row {row}", record


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Record]]]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _json,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
