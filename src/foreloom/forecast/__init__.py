"""The users' door: load a model, forecast arrays or tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foreloom.forecast.model import Model, forecast_file, from_pretrained

if TYPE_CHECKING:
    from foreloom.forecast.files import read_table, write_table

__all__ = ["Model", "forecast_file", "from_pretrained", "read_table", "write_table"]


def __getattr__(name: str):
    """Tables bring pandas along, for a second: arrays do without."""
    if name not in ("read_table", "write_table"):
        raise AttributeError(f"module 'foreloom.forecast' has no attribute {name!r}")
    from foreloom.forecast import files

    return getattr(files, name)
