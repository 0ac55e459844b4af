"""Pickles read without running them: plain Python values and numpy arrays, nothing else."""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_ARRAY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray", "numpy._core.numeric", "numpy.core.numeric")
_PLAIN_TYPE = re.compile(r"[biuf]\d{1,2}|O8?|[SU][1-9]\d*|M8")
_MOST_EMPTY = 2**16
"""Rows of an array without a value: they cost no byte to claim, and each is looked at."""
_LEAST_MEMO = 2**16
_LONGEST_INTEGER = 1024
"""Bytes: Python writes none of more out."""
DAMAGED = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError),
    *(MemoryError, OverflowError, RecursionError, TypeError, ValueError),
)
"""What a pickle that is cut short or no pickle at all can raise."""


class _Refused(Exception):
    """Something that data have no need of."""


def refuse_hollow(shape: tuple[int, ...]) -> None:
    """ValueError for an array that holds nothing and says that it has a great many rows."""
    if 0 in shape and math.prod(size for size in shape if size) > _MOST_EMPTY:
        raise ValueError(f"an array of shape {shape} holds nothing")


class _Dtype:
    """What a pickle says of a dtype. numpy's own takes any state, with which bytes are read as pointers."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not (isinstance(name, str) and _PLAIN_TYPE.fullmatch(name)):
            raise _Refused(f"numpy dtype {name!r}")
        self._name = name
        self._order: Any = "="

    def __setstate__(self, state: Any) -> None:
        """(version, byte order, ...) and at the end, of times, what their unit is."""
        self._order = state[1]
        if self._name == "M8":
            unit, count = state[-1][1][:2]
            self._name = f"M8[{count:d}{unit.decode()}]"

    def real(self) -> np.dtype:
        return np.dtype(self._name).newbyteorder(self._order)


class _Array(np.ndarray):
    """An array that a pickle fills: numpy's own would take a dtype and a size that do not fit its bytes."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        real, size = dtype.real(), math.prod(shape)
        holds = list if real.hasobject else bytes | bytearray
        length = size if real.hasobject else size * real.itemsize
        if not isinstance(content, holds) or len(content) != length or min(shape, default=0) < 0:
            raise ValueError(f"an array of shape {shape} does not fit what is stored of it")
        refuse_hollow(shape)
        checked: Any = (1, shape, real, bool(is_fortran), content)
        super().__setstate__(checked)


class _Maker:
    """A function that a pickle may call but, unlike a function itself, not change."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("state for a function")


def _from_buffer(buffer: Any, dtype: _Dtype, shape: Any, order: Any) -> np.ndarray:
    array = np.frombuffer(buffer, dtype=dtype.real()).reshape(shape, order=order).view(_Array)
    refuse_hollow(array.shape)
    return array


def _scalar(dtype: _Dtype, content: bytes) -> np.generic:
    (value,) = np.frombuffer(content, dtype=dtype.real())
    return value


def _bytes(*content: Any) -> bytes:
    """None: a pickle names the class to write empty ones, and with a number it would be a size, of zeros."""
    if content:
        raise _Refused(f"bytes of {content[0]!r}")
    return b""


def _bytearray(content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """Of what the pickle holds: a number would be a size, of zeros."""
    if isinstance(content, str):
        content = content.encode(encoding)
    if not isinstance(content, bytes):
        raise _Refused(f"bytearray of {content!r}")
    return bytearray(content)


_ALLOWED: dict[tuple[str, str], Any] = {
    **{(module, "_reconstruct"): _Maker(lambda *_: np.empty(0).view(_Array)) for module in _ARRAY_MODULES},
    **{(module, "scalar"): _Maker(_scalar) for module in _ARRAY_MODULES},
    **{(module, "_frombuffer"): _Maker(_from_buffer) for module in _ARRAY_MODULES},
    ("numpy", "ndarray"): "the class, which is named and never called",
    ("numpy", "dtype"): _Maker(_Dtype),
    # Bytes of arrays as protocols below 3 and 5 write them.
    ("__builtin__", "bytes"): _Maker(_bytes),
    ("_codecs", "encode"): _Maker(lambda text, encoding: text.encode("latin1")),
    ("builtins", "bytearray"): _Maker(_bytearray),
    ("__builtin__", "bytearray"): _Maker(_bytearray),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_pickles(path: Path) -> Iterator[Any]:
    """Every object of a file of one pickle, or of several in a row: lists, tuples, dictionaries, numbers, text, numpy
    arrays and scalars.

    Raises ValueError, with its name, for anything else: a pickle may call any function when it is loaded, so only ours
    are called, which build these values and check that what is stored of an array is what the array holds. Raises
    ValueError for a damaged file too.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < num_bytes:
            yield unpickle(file, str(path))


def unpickle(file: BinaryIO, where: str) -> Any:
    """The next object of an open file, leaving the file behind its end; ValueErrors begin with `where`."""
    try:
        refuse_numbers(file)
        return _Unpickler(file).load()
    except _Refused as refused:
        raise ValueError(
            f"{where}: the pickle holds a {refused}. Only lists, tuples, dictionaries, numbers, text and numpy arrays "
            "are read from pickles: loading another class would run code that the file brings along. Save the series "
            "as lists or arrays, better as .jsonl, .npy or Parquet."
        ) from None
    except DAMAGED as error:
        raise ValueError(
            f"{where}: not a readable pickle ({error}). It may be cut short: copy or write it again."
        ) from error


def _run_of_fixed() -> re.Pattern[bytes]:
    """Opcodes one after the other, each with as many bytes of an argument as it always has."""
    codes: dict[int, bytes] = {}
    for one in pickletools.opcodes:
        size = one.arg.n if one.arg else 0
        if size >= 0 and one.name not in ("LONG_BINPUT", "STOP"):
            codes[size] = codes.get(size, b"") + b"\\x%02x" % ord(one.code)
    return re.compile(b"(?s:" + b"|".join(b"[%s].{%d}" % (of_size, size) for size, of_size in codes.items()) + b")*+")


_FIXED = _run_of_fixed()
_SIZE_BYTES = {
    one.code.encode("latin1"): {-2: 1, -3: 4, -4: 4, -5: 8}[one.arg.n]
    for one in pickletools.opcodes
    if one.arg and one.arg.n < -1
}
"""Of opcodes that say how long their argument is."""
_LINES = {
    one.code.encode("latin1"): 2 if one.name in ("GLOBAL", "INST") else 1
    for one in pickletools.opcodes
    if one.arg and one.arg.n == -1
}
"""Of opcodes whose arguments are text."""


def refuse_numbers(file: BinaryIO) -> None:
    """ValueError where the pickle that comes next in `file`, which is left where it is, would take memory for a number
    that it names and not for what it holds: the memo is an array as long as the largest index something is put at.
    """
    at = file.tell()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        most = max(len(content), _LEAST_MEMO)
        while (code := content[(at := _FIXED.match(content, at).end()) : at + 1]) != b".":  # type: ignore[union-attr]
            begin = at = at + 1
            index = 0
            if code == b"r":
                index, at = int.from_bytes(content[at : at + 4], "little"), at + 4
            elif code in _SIZE_BYTES:
                begin = at + _SIZE_BYTES[code]
                size = int.from_bytes(content[at:begin], "little")
                if code == b"\x8b" and size > _LONGEST_INTEGER:
                    raise ValueError(f"an integer of {size:,} bytes")
                at = begin + size
            elif code in _LINES:
                for _ in range(_LINES[code]):
                    begin, at = at, content.find(b"\n", at) + 1
                    if not at:
                        return  # cut short, as loading it tells
                index = int(content[begin:at]) if code == b"p" else 0
            else:
                return
            if index > most:
                raise ValueError(f"place {index:,} of its memo, in {len(content):,} bytes")
