"""The users' door: load a model, forecast arrays or tables."""

from foreloom.forecast.files import forecast_file, read_table, write_table
from foreloom.forecast.model import Model, from_pretrained

__all__ = ["Model", "forecast_file", "from_pretrained", "read_table", "write_table"]
