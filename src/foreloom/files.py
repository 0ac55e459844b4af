"""Files that are whole or absent: what is written under a name appears there only when it is complete. And JSON."""

from __future__ import annotations

import json
import math
import os
import socket
import stat
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any


def _this_machine() -> str:
    """Where the number of a process means something: a machine, and a container on it."""
    namespace = Path("/proc/self/ns/pid")
    told = f"{socket.gethostname()} {os.readlink(namespace) if namespace.exists() else ''}"
    return blake2b(told.encode(), digest_size=4).hexdigest()


HERE = _this_machine()
"""Where the number of a process means something."""


@contextmanager
def whole_or_absent(path: str | Path) -> Generator[Path]:
    """A path beside `path` to write to, with the same ending: renamed to `path` when the block ends, removed when it
    fails. Folders above are made; what a process of this machine left there when it was killed is removed. A system
    error that names no file (a full disk), or the one beside, names `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_forsaken(path.parent)
    beside = path.with_name(f".{HERE}-{os.getpid()}.partial.{path.name}")
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
        if beside.exists():  # a read-only disk refuses to remove even what is not there
            beside.unlink()


def check_writable(path: str | Path, option: str, read: Iterable[str | Path] = ()) -> None:
    """ValueError, which names `option` ("": there is none), where no file can be written to `path`, or where it is one
    of the files that are `read` or lies in one of the folders: known before the work, not after it."""
    path = Path(path).absolute()
    named = f"{option} {path}".lstrip()
    if path.is_dir():
        raise ValueError(f"{named} is a folder. Name a file in it.")
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{named}: {above} is a file, and nothing lies below a file. Name another place.")
    try:
        with tempfile.TemporaryFile(dir=above) as file:
            file.write(b" ")
    except OSError as error:
        raise ValueError(f"{named}: {above} takes no file ({error.strerror}). Name another place.") from None
    place = path.resolve()
    for one in map(Path, read):
        if one.resolve() in (place, *place.parents):
            raise ValueError(f"{named}: {one} is read, and nothing is written over it or into it. Name another place.")


def _remove_forsaken(folder: Path) -> None:
    for left in folder.glob(f".{HERE}-*.partial.*"):
        pid = left.name.removeprefix(f".{HERE}-").partition(".")[0]
        if pid.isdecimal() and not is_alive(int(pid)):
            left.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Is there a process of this number on this machine?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def write_text(path: str | Path, text: str) -> None:
    """Text as UTF-8, whole or not at all."""
    with whole_or_absent(path) as beside:
        beside.write_text(text, encoding="utf-8")


def parse_json(text: str | bytes, path: Path, remedy: str, *, line: int | None = None) -> Any:
    """What JSON says; ValueError with file and line, which ends in `remedy`, for text that is none. `line` is the one
    that `text` is of its file."""
    try:
        return json.loads(text)
    except RecursionError:
        place, reason = line, "it is nested too deep"
    except json.JSONDecodeError as error:
        place, reason = line or error.lineno, f"{error.msg} at column {error.colno}"
    except UnicodeDecodeError as error:
        place, reason = line, f"no UTF-8 text at byte {error.start}"
    except ValueError as error:  # a number of thousands of digits
        place, reason = line, str(error)
    raise ValueError(f"{path}{f':{place}' if place else ''}: not JSON ({reason}). {remedy}") from None


def read_json(path: Path, remedy: str) -> Any:
    """`parse_json` of a file."""
    return parse_json(path.read_bytes(), path, remedy)


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
