"""The users' door: load a model, forecast arrays or tables."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from foreloom.forecast.model import Model, from_pretrained

if TYPE_CHECKING:
    from foreloom.forecast.files import read_table, write_table
    from foreloom.forecast.from_file import forecast_file

__all__ = ["Model", "forecast_file", "from_pretrained", "read_table", "write_table"]
_OF_TABLES = {"forecast_file": "from_file", "read_table": "files", "write_table": "files"}


def __getattr__(name: str):
    """Tables bring pandas along, for a second: arrays do without."""
    if name not in _OF_TABLES:
        raise AttributeError(f"module 'foreloom.forecast' has no attribute {name!r}")
    return getattr(importlib.import_module(f"foreloom.forecast.{_OF_TABLES[name]}"), name)
