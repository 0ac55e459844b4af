"""Subnormal floats (below 1.2e-38): flushed to zero where models compute, kept where data are made.

A trained model makes them all the time, in the tails of softmax above all, and many processors take a hundred times as
long over each. The setting is a thread's own, and a thread begins with that of the one that starts it.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

_HARD_PAUSE = 2
"""OpenMP's omp_pause_hard."""


def are_flushed() -> bool:
    """Does this thread compute 0 where the result is subnormal?"""
    return sys.float_info.min / 2 == 0.0


@contextmanager
def flushed() -> Generator[None]:
    """Flush in this thread, its OpenMP workers and the threads it starts; then all is as it was.

    Where the processor cannot, nothing changes. numpy's BLAS has workers of its own, which keep what they began with.
    """
    if are_flushed() or not _set(True):
        yield
        return
    _restart_workers()
    try:
        yield
    finally:
        _set(False)
        _restart_workers()


@contextmanager
def kept() -> Generator[None]:
    """Compute exactly in this thread, with numpy: the same bits in whichever thread, inside `flushed` or out."""
    was_flushed = are_flushed() and _set(False)
    try:
        yield
    finally:
        if was_flushed:
            _set(True)


def _set(flush: bool) -> bool:
    """False where the processor cannot."""
    import torch  # seconds, which commands that compute nothing need not spend

    return torch.set_flush_denormal(flush)


def _restart_workers() -> None:
    """End the OpenMP workers of this thread; the next parallel operation starts new ones, with its setting.

    GNU's workers keep for life what they began with. Those of LLVM and Intel take the setting over at each operation.
    """
    pause = _pause_of_gnu_openmp()
    if pause is not None:
        pause(_HARD_PAUSE)


@functools.cache
def _pause_of_gnu_openmp() -> Callable[[int], int] | None:
    """omp_pause_resource_all of the runtime that torch is linked with, None where that is not GNU's."""
    import torch

    library = ctypes.CDLL(torch._C.__file__)
    return None if hasattr(library, "__kmpc_fork_call") else getattr(library, "omp_pause_resource_all", None)
