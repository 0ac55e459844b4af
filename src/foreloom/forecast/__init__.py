"""The users' door: load a model, forecast arrays or tables."""

from foreloom.forecast.model import Model, forecast_file, from_pretrained
from foreloom.forecast.table import read_table, write_table

__all__ = ["Model", "forecast_file", "from_pretrained", "read_table", "write_table"]
