"""foreloom: one trainer for sequence foundation models, time series first.

import foreloom

model = foreloom.from_pretrained("amazon/chronos-2")
forecast = model.predict_df(table, prediction_length=24, quantile_levels=[0.1, 0.5, 0.9])

foreloom.train("recipe.yaml", ["training.steps=100"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foreloom.forecast import Model, from_pretrained
    from foreloom.run import train

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "from_pretrained", "train"]

_HOMES = {"from_pretrained": "foreloom.forecast", "Model": "foreloom.forecast", "train": "foreloom.run"}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str):
    """Import what is asked for, when it is asked for: torch alone costs seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'foreloom' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
