"""What tells files of data apart, wherever they lie: names, sizes and contents, no folders and no dates."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from foreloom.data.formats.cache import cache_folder, state_of
from foreloom.data.formats.parts import find_parts
from foreloom.files import write_text

WHOLE_UP_TO = 256 * 2**20
"""Bytes of a data set up to which all of them are read, and the result remembered; of larger ones blocks are."""
_BLOCK_BYTES = 4096
_NUM_BLOCKS = 4096
"""Of a large data set, shared among its files, evenly spread from the first byte to the last."""
_LEAST_BLOCKS = 16
_REMEMBERED_FROM = 2**20
_SETTLED_SECONDS = 2.0
"""A file changed less long ago may change again within one tick of its clock."""


def digests(files: Sequence[Path]) -> dict[str, str]:
    """A digest of each file of a data set, by name: of all its bytes, or of its size and some blocks of a large set."""
    if sum(path.stat().st_size for path in files) <= WHOLE_UP_TO:
        return {path.name: _whole(path) for path in files}
    num_blocks = max(_NUM_BLOCKS // len(files), _LEAST_BLOCKS)
    return {path.name: _sampled(path, num_blocks) for path in files}


def combine(kind: str, parts: dict[str, str]) -> str:
    """One digest of several, and of what they are digests of."""
    return blake2b(repr((kind, sorted(parts.items()))).encode(), digest_size=16).hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of every byte: of one file what sha256sum prints; of a folder, of the list that sha256sum prints of its
    files, sorted by name."""
    files = sorted({file for part in find_parts(path) for file in (*part.files, *part.indices)})
    listed = ""
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if path.is_file():
            return digest
        listed += f"{digest}  {file.relative_to(path).as_posix()}\n"
    return hashlib.sha256(listed.encode()).hexdigest()


def _whole(path: Path) -> str:
    """Remembered in the cache until size or times of the file change; where the cache cannot be written, not at all."""
    stat = path.stat()
    known = cache_folder() / "digests" / blake2b(state_of(path).encode(), digest_size=16).hexdigest()
    if stat.st_size >= _REMEMBERED_FROM and known.exists():
        return known.read_text(encoding="utf-8")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
    if stat.st_size >= _REMEMBERED_FROM and time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLED_SECONDS:
        with contextlib.suppress(OSError):
            write_text(known, digest)
    return digest


def _sampled(path: Path, num_blocks: int) -> str:
    num_bytes = path.stat().st_size
    digest = blake2b(str(num_bytes).encode(), digest_size=16)
    with path.open("rb") as file:
        for begin in np.unique(np.linspace(0, max(num_bytes - _BLOCK_BYTES, 0), num_blocks).astype(np.int64)):
            digest.update(os.pread(file.fileno(), _BLOCK_BYTES, int(begin)))
    return digest.hexdigest()
