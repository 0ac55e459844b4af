"""The synthetic processes by name. A process's code is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import Any, Protocol

from foreloom.data.synthetic.process import Maker, OpenSource

_PROCESSES = (
    "kernel", "tsmixup", "regimes", "ets", "arma", "count", "intermittent", "spikes", "volatility", "chaos", "causal",
    "patterns",
)  # fmt: skip
"""Each is a module here that holds the record `PROCESS`."""


class Record(Protocol):
    """What all processes show of themselves, see `StochasticProcess`."""

    @property
    def name(self) -> str: ...
    @property
    def sentence(self) -> str: ...
    @property
    def settings(self) -> type: ...
    @property
    def length(self) -> str: ...

    def open(self, settings: Any, seed: int, shortest: int, longest: int, open_source: OpenSource) -> Maker: ...


def names() -> tuple[str, ...]:
    """All processes, as in `synth://name`."""
    return _PROCESSES


def get(name: str) -> Record:
    """The process of that name; ValueError suggests the nearest one."""
    if name not in _PROCESSES:
        close = difflib.get_close_matches(name, _PROCESSES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"there is no synthetic process {name!r}; foreloom has {', '.join(_PROCESSES)}.{hint}")
    return importlib.import_module(f"foreloom.data.synthetic.{name}").PROCESS
