"""The token file of a source: its documents tokenised once, in parallel, kept in the cache and mapped from there.

The file holds the tokens of all documents one after another, then the documents' ends, bytes and hashes, then a line of
JSON that says how many there are, and its length. Axes: T tokens, D documents.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foreloom.data.formats.cache import byte_bar, cache_folder, locked
from foreloom.data.text.config import TextConfig, TextSource
from foreloom.data.text.documents import Document, find_documents, read_documents
from foreloom.data.text.tokenizer import Encoded, TextTokenizer, load_tokenizer
from foreloom.files import whole_or_absent

FORMAT_VERSION = 1
"""Part of every key: raise it when the same documents become something else."""
NOT_LEARNED = np.uint32(1 << 31)
"""The bit of a token that is no target: of what is said to a chat model."""
EMPTY, WITHOUT_ANSWER = "empty", "without an answer"
"""Why a document is left out."""
_AT_ONCE = 2**20
"""Characters of documents that are tokenised together."""
_ALONE_BELOW = 8 * 2**20
"""Bytes of files that are tokenised in this process: others take seconds to start."""


class TokenFile:
    """A source as tokens; see `token_file`."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with path.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            length = int.from_bytes(file.read(8), "little")
            file.seek(-8 - length, os.SEEK_END)
            about = json.loads(file.read(length))
        self.left_out: Mapping[str, int] = about["left_out"]
        """Documents that are not there, by reason."""
        num_tokens, num_documents = about["num_tokens"], about["num_documents"]
        dtype = np.dtype(about["dtype"])
        self.token_T = np.memmap(path, dtype, "r", shape=(num_tokens,)) if num_tokens else np.empty(0, dtype)
        """Token, and for uint32 perhaps the bit `NOT_LEARNED`."""
        columns = np.fromfile(path, np.int64, 3 * num_documents, offset=about["columns_at"]).reshape(3, num_documents)
        self.end_D, self.num_bytes_D, hash_D = columns
        """Tokens up to the end of each document; bytes of text that its learned tokens stand for."""
        self.hash_D = hash_D.view(np.uint64)
        """Of each document's tokens."""
        self.num_bytes = path.stat().st_size
        self.key = path.stem


def token_file(source: TextSource, config: TextConfig, tokenizer: TextTokenizer) -> TokenFile:
    """The tokens of a source, made where the cache has none for this content, tokenizer and settings.

    Whoever comes first makes the file, with a bar; other processes of the machine wait for it, however long it takes.
    Raises ValueError where a file cannot be read and where no document is left.
    """
    files = find_documents(source)
    target = _target(source, config, tokenizer, files)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_suffix(".lock")):
            if not target.exists():
                with whole_or_absent(target) as beside:
                    _write(beside, files, source, config, tokenizer)
    made = TokenFile(target, source.name)
    if not len(made.end_D):
        left_out = ", ".join(f"{number:,} {reason}" for reason, number in made.left_out.items() if number)
        raise ValueError(f"{source.name}: no document to learn from ({left_out or 'the files are empty'}).")
    return made


def is_made(source: TextSource, config: TextConfig, tokenizer: TextTokenizer) -> bool:
    """Does the cache have that token file?"""
    return _target(source, config, tokenizer, find_documents(source)).exists()


def _target(source: TextSource, config: TextConfig, tokenizer: TextTokenizer, files: Sequence[Path]) -> Path:
    settings = (FORMAT_VERSION, tokenizer.fingerprint, *_what_is_read(source), _learns_all(source, config))
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for path in files:
        with path.open("rb") as file:
            digest.update(path.suffix.encode() + hashlib.file_digest(file, "blake2b").digest())
    return cache_folder() / f"{files[0].stem}-{digest.hexdigest()}.tokens"


def _what_is_read(source: TextSource) -> tuple[str | None, ...]:
    return source.text_column, source.messages_column, source.separator


def _learns_all(source: TextSource, config: TextConfig) -> bool:
    return source.messages_column is None or config.loss_on == "all"


class _Chunk(NamedTuple):
    """Documents that are tokenised together."""

    documents: list[Document]
    num_bytes: int
    """How far the files are read with it."""


class _Tokens(NamedTuple):
    """Those of a chunk."""

    token_T: np.ndarray
    length_D: np.ndarray
    num_bytes_D: np.ndarray
    hash_D: np.ndarray
    left_out: Counter[str]


def _write(path: Path, files: Sequence[Path], source: TextSource, config: TextConfig, tokenizer: TextTokenizer) -> None:
    learns_all = _learns_all(source, config)
    dtype = np.dtype(np.uint16 if learns_all and tokenizer.vocabulary_size <= 2**16 else np.uint32)
    num_bytes = sum(file.stat().st_size for file in files)
    columns: list[list[np.ndarray]] = [[], [], []]
    left_out: Counter[str] = Counter()
    num_tokens = 0
    what = f"tokenising {source.name} once"
    encode = functools.partial(_encode, tokenizer=tokenizer.name, learns_all=learns_all)
    with path.open("wb") as out, byte_bar(what, num_bytes) as advance:
        for chunk, tokens in _in_order(encode, _chunks(files, source), num_bytes, config.num_processes):
            out.write(np.ascontiguousarray(tokens.token_T, dtype).tobytes())
            num_tokens += len(tokens.token_T)
            for column, values in zip(columns, (tokens.length_D, tokens.num_bytes_D, tokens.hash_D), strict=True):
                column.append(values)
            left_out += tokens.left_out
            advance(chunk.num_bytes)
        out.write(b"\0" * (-out.tell() % 8))
        columns_at = out.tell()
        length_D, num_bytes_D, hash_D = (np.concatenate([np.empty(0, np.int64), *column]) for column in columns)
        for values in (np.cumsum(length_D), num_bytes_D, hash_D):
            out.write(values.astype(np.int64).tobytes())
        about = {"num_tokens": num_tokens, "num_documents": len(length_D), "dtype": dtype.name}
        footer = json.dumps({**about, "columns_at": columns_at, "left_out": left_out}).encode()
        out.write(footer + len(footer).to_bytes(8, "little"))


def _chunks(files: Sequence[Path], source: TextSource) -> Iterator[_Chunk]:
    for path in files:
        documents: list[Document] = []
        size = read = 0
        for document in read_documents(path, source):
            documents.append(document)
            size += len(document.content) if isinstance(document.content, str) else len(str(document.content))
            if size >= _AT_ONCE:
                yield _Chunk(documents, size)
                documents, read, size = [], read + size, 0
        yield _Chunk(documents, max(path.stat().st_size - read, 0))


def _in_order(
    encode: Any, chunks: Iterable[_Chunk], num_bytes: int, num_processes: int
) -> Iterator[tuple[_Chunk, _Tokens]]:
    """Each chunk with its tokens, in order, few of them in memory."""
    num_processes = num_processes or os.cpu_count() or 1
    if num_bytes < _ALONE_BELOW or num_processes == 1:
        for chunk in chunks:
            yield chunk, encode(chunk.documents)
        return
    waiting: list[tuple[_Chunk, Any]] = []
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        try:
            for chunk in chain(chunks, [None] * 2 * num_processes):
                if chunk is not None:
                    waiting.append((chunk, pool.submit(encode, chunk.documents)))
                if waiting and (chunk is None or len(waiting) > 2 * num_processes):
                    first, tokens = waiting.pop(0)
                    yield first, tokens.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _encode(documents: Sequence[Document], *, tokenizer: str, learns_all: bool) -> _Tokens:
    """In any process: the documents that are not left out, as tokens."""
    its = load_tokenizer(tokenizer)
    left_out: Counter[str] = Counter()
    texts = [document.content for document in documents if isinstance(document.content, str)]
    there = [text for text in texts if text.strip()]
    left_out[EMPTY] = len(texts) - len(there)
    encoded: list[Encoded] = its.encode_texts(there) if there else []
    for document in documents:
        if isinstance(document.content, str):
            continue
        try:
            one = its.encode_chat(document.content, learns_all=learns_all)
        except ValueError as error:
            raise ValueError(f"{document.place}: {error}") from None
        if one is None:
            left_out[WITHOUT_ANSWER] += 1
        else:
            encoded.append(one)
    arrays = []
    for one in encoded:
        token_T = np.array(one.token_T, np.uint32)
        if one.is_learned_T is not None:
            token_T[~np.array(one.is_learned_T)] |= NOT_LEARNED
        arrays.append(token_T)
    hashes = [int.from_bytes(hashlib.blake2b(one.tobytes(), digest_size=8).digest(), "little") for one in arrays]
    return _Tokens(
        np.concatenate([np.empty(0, np.uint32), *arrays]),
        np.array([len(one) for one in arrays], np.int64),
        np.array([one.num_bytes for one in encoded], np.int64),
        np.array(hashes, np.uint64).view(np.int64),
        left_out,
    )
