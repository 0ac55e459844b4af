"""Chaotic flows and maps whose right sides are quadratic, as tables of coefficients.

Axes: X coordinates, M monomials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MONOMIALS = ("1", "x", "y", "z", "xx", "yy", "zz", "xy", "yz", "zx")
"""What a right side is a weighted sum of."""

Terms = Mapping[str, float]


@dataclass(frozen=True)
class System:
    """A flow dx/dt = f(x), or a map x[t+1] = f(x[t]), of up to three coordinates that move on a strange attractor."""

    sides: tuple[Terms, Terms, Terms]
    """f of each coordinate: monomial -> coefficient."""
    start: tuple[float, float, float]
    """A point from which all of its neighbours fall onto the attractor."""
    spread: tuple[float, float, float]
    """Rounded deviation of each coordinate on the attractor; 0 for one that the system does not have."""
    varied: float
    """Share by which each coefficient may be off and the system stays on a bounded attractor."""
    step: tuple[float, float] = (0.0, 0.0)
    """The least and the most time between two steps of the series; (0, 0) says that it is a map."""

    @property
    def is_map(self) -> bool:
        return self.step[1] == 0

    def coefficients(self) -> np.ndarray:
        """float64 (X, M)."""
        return np.array([[side.get(monomial, 0.0) for monomial in MONOMIALS] for side in self.sides])


SYSTEMS: dict[str, System] = {
    # Lorenz 1963.
    "lorenz": System(
        ({"x": -10, "y": 10}, {"x": 28, "y": -1, "zx": -1}, {"z": -8 / 3, "xy": 1}),
        start=(5, 5, 25),
        spread=(8, 9, 8.5),
        varied=0.05,
        step=(0.01, 0.05),
    ),
    # Roessler 1976.
    "rossler": System(
        ({"y": -1, "z": -1}, {"x": 1, "y": 0.2}, {"1": 0.2, "z": -5.7, "zx": 1}),
        start=(4, -3, 0.1),
        spread=(5, 4.7, 2.8),
        varied=0.04,
        step=(0.05, 0.15),
    ),
    # Chen and Ueta 1999.
    "chen": System(
        ({"x": -35, "y": 35}, {"x": -7, "y": 28, "zx": -1}, {"z": -3, "xy": 1}),
        start=(5, 5, 20),
        spread=(8, 8.5, 6.5),
        varied=0.02,
        step=(0.004, 0.015),
    ),
    # Halvorsen's cyclic system, in Sprott 2003.
    "halvorsen": System(
        (
            {"x": -1.4, "y": -4, "z": -4, "yy": -1},
            {"y": -1.4, "z": -4, "x": -4, "zz": -1},
            {"z": -1.4, "x": -4, "y": -4, "xx": -1},
        ),
        start=(-6, -1, 0),
        spread=(3.3, 3.3, 3.3),
        varied=0.01,
        step=(0.01, 0.04),
    ),
    # Rucklidge 1992, double convection.
    "rucklidge": System(
        ({"x": -2, "y": 6.7, "yz": -1}, {"x": 1}, {"z": -1, "yy": 1}),
        start=(1, 1, 4.5),
        spread=(2.7, 2.5, 3),
        varied=0.03,
        step=(0.03, 0.15),
    ),
    # Sprott 1994, case B.
    "sprott_b": System(
        ({"yz": 1}, {"x": 1, "y": -1}, {"1": 1, "xy": -1}),
        start=(0.5, 0.5, 0.1),
        spread=(1.4, 1, 1.3),
        varied=0.05,
        step=(0.05, 0.2),
    ),
    # Verhulst's map at its wildest (May 1976).
    "logistic": System(({"x": 3.85, "xx": -3.85}, {}, {}), start=(0.4, 0, 0), spread=(0.28, 0, 0), varied=0.035),
    # Henon 1976.
    "henon": System(
        ({"1": 1, "xx": -1.33, "y": 1}, {"x": 0.3}, {}), start=(0.1, 0.1, 0), spread=(0.72, 0.22, 0), varied=0.02
    ),
    # A population that is eaten by its own past (Maynard Smith 1968).
    "delayed_logistic": System(
        ({"x": 2.2, "xy": -2.2}, {"x": 1}, {}), start=(0.5, 0.4, 0), spread=(0.3, 0.3, 0), varied=0.02
    ),
}
