"""Files that are whole or absent: what is written under a name appears there only when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_or_absent(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to, with the same ending: renamed to `path` when the block ends, removed when it
    fails. Folders above are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Text as UTF-8, whole or not at all."""
    with whole_or_absent(path) as beside:
        beside.write_text(text, encoding="utf-8")
