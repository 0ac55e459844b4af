"""Pickles read without running them: plain Python values and numpy arrays, nothing else."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_ARRAY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray", "numpy._core.numeric", "numpy.core.numeric")
_PLAIN_TYPE = re.compile(r"[biuf]\d{1,2}|O8?|[SU]\d+|M8")
DAMAGED = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError),
    *(MemoryError, OverflowError, RecursionError, TypeError, ValueError),
)
"""What a pickle that is cut short or no pickle at all can raise."""


class _Refused(Exception):
    """Something that data have no need of."""


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
    return np.frombuffer(buffer, dtype=dtype.real()).reshape(shape, order=order).view(_Array)


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
