"""Pickles read without running them: plain Python values and numpy arrays, nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_ARRAY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray", "numpy._core.numeric", "numpy.core.numeric")
_reconstruct = np.array(0).__reduce__()[0]
_scalar = np.float64(0).__reduce__()[0]
_frombuffer = np.array([0]).__reduce_ex__(5)[0]

_ALLOWED: dict[tuple[str, str], Any] = {
    **{(module, "_reconstruct"): _reconstruct for module in _ARRAY_MODULES},
    **{(module, "scalar"): _scalar for module in _ARRAY_MODULES},
    **{(module, "_frombuffer"): _frombuffer for module in _ARRAY_MODULES},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # Bytes of arrays as protocols below 3 and 5 write them.
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
    ("builtins", "bytearray"): bytearray,
    ("__builtin__", "bytearray"): bytearray,
}
_DAMAGED = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError),
    *(MemoryError, OverflowError, TypeError, ValueError),
)
"""What a pickle that is cut short or no pickle at all can raise."""


class _Refused(Exception):
    """A class or function that data have no need of."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_pickles(path: Path) -> Iterator[Any]:
    """Every object of a file of one pickle, or of several in a row: lists, tuples, dictionaries, numbers, text, numpy
    arrays and scalars.

    Raises ValueError, with its name, for anything else: a pickle may call any function when it is loaded, so only those
    are called that build these values. Raises ValueError for a damaged file too.
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
    except _DAMAGED as error:
        raise ValueError(
            f"{where}: not a readable pickle ({error}). It may be cut short: copy or write it again."
        ) from error
