"""Files that are whole or absent: what is written under a name appears there only when it is complete."""

from __future__ import annotations

import math
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_or_absent(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to, with the same ending: renamed to `path` when the block ends, removed when it
    fails. Folders above are made. A system error that names no file (a full disk), or the one beside, names `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        beside.touch()
        permissions = stat.S_IMODE(beside.stat().st_mode)
        yield beside
        beside.chmod(permissions)  # safetensors gives its files to the owner alone
        os.replace(beside, path)
    except OSError as error:
        if error.errno and error.filename in (None, str(beside), beside):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        beside.unlink(missing_ok=True)


def check_writable(path: str | Path, option: str) -> None:
    """ValueError, which names `option`, where no file can be written to `path`: known before the work, not after it."""
    path = Path(path).absolute()
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder. Name a file in it.")
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{option} {path}: {above} is a file, and nothing lies below a file. Name another place.")
    try:
        with tempfile.TemporaryFile(dir=above) as file:
            file.write(b" ")
    except OSError as error:
        raise ValueError(f"{option} {path}: {above} takes no file ({error.strerror}). Name another place.") from None


def write_text(path: str | Path, text: str) -> None:
    """Text as UTF-8, whole or not at all."""
    with whole_or_absent(path) as beside:
        beside.write_text(text, encoding="utf-8")


def strict_json(value: Any) -> Any:
    """`value` with everything JSON cannot say made null (non-finite) or text (paths, dates)."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): strict_json(item) for key, item in value.items()}
        case list() | tuple():
            return [strict_json(item) for item in value]
        case _:
            return str(value)
