"""Studies: several runs that answer one question together.

What is public is named here and imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "foreloom.lab.study.experiments": (
        "gen_experim", "gen_lstm_experim", "create_multi_lr_experiments", "create_multi_seed_experiments",
        "create_ladder_experiments", "subset_experiments", "NARROW_LR_SWEEP", "WIDE_LR_SWEEP",
    ),
    "foreloom.lab.labels": ("learning_rate_in",),
    "foreloom.lab.study.study": ("Study", "find_study", "read_study"),
}  # fmt: skip
_ROOM_OF = {name: room for room, names in _PUBLIC.items() for name in names}

__all__ = list(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"foreloom.lab has no {name}; it has {', '.join(_ROOM_OF)}")
    return getattr(importlib.import_module(_ROOM_OF[name]), name)
