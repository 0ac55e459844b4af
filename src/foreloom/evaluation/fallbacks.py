"""Forecasts that another model gave because the one asked for failed: counted, so that a table can say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from foreloom.models.family import Forecaster


@dataclass
class Fallbacks:
    """A running count, shared by the copies that a forecaster makes of itself for other seasons."""

    num: int = 0


@runtime_checkable
class FallingBack(Protocol):
    """A forecaster that asks a simpler one where it fails, and counts it."""

    fallbacks: Fallbacks


def num_fallbacks(forecaster: Forecaster) -> int:
    """Targets so far that were forecast by a simpler model."""
    return forecaster.fallbacks.num if isinstance(forecaster, FallingBack) else 0
