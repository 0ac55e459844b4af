"""What settings of several processes are made of: periods, shares and noise, with their limits."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field

T = TypeVar("T")


def _listed(value: Any) -> Any:
    """In an address (`synth://chaos?systems=lorenz,henon`) a list is words between commas."""
    return value.split(",") if isinstance(value, str) else value


Several = Annotated[tuple[T, ...], Field(min_length=1), BeforeValidator(_listed)]
"""At least one of something."""

Periods = Several[Annotated[int, Field(ge=2, le=2048)]]
"""Lengths of a season in steps, at least one."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""0 is none of the series, 1 all of them."""

Noise = Annotated[float, Field(ge=0.0, le=10.0)]
"""The most noise of a series, its unit said beside it. 0 is none."""

COMMON_PERIODS = (4, 7, 12, 24, 48, 52, 60, 96, 144, 168, 288, 336, 365)
"""Quarters and months of a year, days of a week, weeks and days of a year, minutes of an hour; hours, half hours,
quarters, ten and five minutes of a day; hours and half hours of a week."""


def refuse_idle_periods(periods: tuple[int, ...], default: tuple[int, ...], seasonal: float) -> None:
    """Raises ValueError where periods are chosen for series that have no season."""
    if seasonal == 0 and periods != default:
        raise ValueError("periods has no effect with seasonal: 0; remove it, or raise seasonal")
