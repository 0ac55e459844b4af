"""How many files may be open at once: a mapped one stays open, and systems allow 256 or 1,024 unless asked."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_SPARE = 64
"""Files that a run opens beside its data."""


def leave_room(path: Path, descriptor: int) -> None:
    """Raise this process's limit where `path`, which is open and about to be mapped, comes near it.

    ValueError, with what to do, where the system does not let it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = os.dup(descriptor)  # the lowest that is free, as its mapping will get
    os.close(number)
    if soft == resource.RLIM_INFINITY or number + _SPARE < soft:
        return
    wanted = 2 * soft + _SPARE if hard == resource.RLIM_INFINITY else min(2 * soft + _SPARE, hard)
    if wanted <= soft:
        raise ValueError(
            f"{path}: {number} files are open, and this system allows {soft} (ulimit -n). Raise the limit (ulimit -n "
            "4096, or nofile in limits.conf), or write the data set as one file with foreloom data convert."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
