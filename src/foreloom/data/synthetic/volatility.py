"""Prices, returns and rates: calm and wild times in turn, fat tails, jumps, and what returns to its mean.

Axes: B series, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from foreloom.config.section import section
from foreloom.data.synthetic.process import Draws, Several, Share, StochasticProcess
from foreloom.data.synthetic.shapes import autoregression, scaled, shifted_and_scaled, stretches

Kind = Literal["garch", "stochastic", "switching", "jumps", "rate"]

_RETURNS = 0.25
_LARGEST_SHOCK = 12.0
"""In deviations. The fattest tails would hold a shock of 10,000 once in a year of seconds."""
_LARGEST_RISE = 8.0
"""Logarithm of how far a price comes from where it began; there it turns round."""
_SHORTEST_SPELL = 10


@section
class VolatilityConfig:
    """Random walks and rates with a volatility of their own."""

    kinds: Several[Kind] = ("garch", "stochastic", "switching", "jumps", "rate")
    """garch: a large shock makes the next ones larger, a fall more than a rise (Glosten, Jagannathan and Runkle 1993).
    stochastic: the logarithm of the variance is an AR(1) (Taylor 1986). switching: calm and wild spells (Hamilton
    1989). jumps: a walk with rare jumps (Merton 1976). rate: a mean-reverting rate (Ornstein and Uhlenbeck)."""
    returns: Share = _RETURNS
    """Share of series other than rates that are returns; the others are prices."""

    def __post_init__(self) -> None:
        if set(self.kinds) == {"rate"} and self.returns != _RETURNS:
            raise ValueError("returns has no effect on kinds: rate; remove it, or add a kind that has returns")


def generate(draws: Draws, num_steps: int, settings: VolatilityConfig) -> np.ndarray:
    """float64 (B, T). Prices are positive: exponentials of the sum of returns."""
    kind_B = _kind(draws, settings)
    shock_BT = _shocks(draws, num_steps)
    for kind, of_variance in (
        ("garch", _garch),
        ("stochastic", _stochastic),
        ("switching", _switching),
        ("jumps", _jumps),
    ):
        rows = np.flatnonzero(kind_B == kind)
        shock_BT[rows] = of_variance(draws.rows(rows), shock_BT[rows])
    rate_B = kind_B == "rate"
    returns_B = ~rate_B & draws.happens("returns", probability=settings.returns)
    series_BT = np.empty_like(shock_BT)
    for rows, observed in ((rate_B, _rate), (returns_B, _returns), (~(rate_B | returns_B), _prices)):
        series_BT[rows] = observed(draws.rows(rows), shock_BT[rows])
    return series_BT


def kinds(draws: Draws, settings: VolatilityConfig) -> Sequence[str]:
    return _kind(draws, settings).tolist()


def _kind(draws: Draws, settings: VolatilityConfig) -> np.ndarray:
    return draws.pick("kind", settings.kinds)


def _shocks(draws: Draws, num_steps: int) -> np.ndarray:
    """Student's t of 3 .. 30 degrees of freedom, scaled to variance 1, by the polar method of Bailey (1994)."""
    freedom_B1 = draws.log_uniform("shock/freedom", 1, low=3.0, high=30.0)
    radius_BT = 1 - draws.uniform("shock/radius", num_steps)
    student_BT = np.sqrt(freedom_B1 * (radius_BT ** (-2 / freedom_B1) - 1))
    student_BT *= np.cos(2 * np.pi * draws.uniform("shock/angle", num_steps))
    return np.clip(student_BT * np.sqrt((freedom_B1 - 2) / freedom_B1), -_LARGEST_SHOCK, _LARGEST_SHOCK)


def _garch(draws: Draws, shock_BT: np.ndarray) -> np.ndarray:
    """Returns of variance 1 on average: h[t+1] = rest + (alpha + gamma [r[t] < 0]) r[t]^2 + beta h[t]."""
    alpha_B = draws.uniform("garch/alpha", low=0.03, high=0.15)
    gamma_B = draws.uniform("garch/gamma", low=0.0, high=0.15)
    lasting_B = draws.uniform("garch/lasting", low=0.9, high=0.995)
    beta_B = lasting_B - alpha_B - gamma_B / 2
    variance_B = np.ones(len(alpha_B))
    return_TB = np.array(shock_BT.T, order="C")
    for step in range(len(return_TB)):
        return_TB[step] *= np.sqrt(variance_B)
        square_B = np.minimum(return_TB[step] ** 2, 2 * _LARGEST_SHOCK**2)
        falls_B = np.where(return_TB[step] < 0, gamma_B, 0.0)
        variance_B = 1 - lasting_B + (alpha_B + falls_B) * square_B + beta_B * variance_B
    return return_TB.T


def _stochastic(draws: Draws, shock_BT: np.ndarray) -> np.ndarray:
    keep_B = 1 - draws.log_uniform("stochastic/fade", low=0.005, high=0.1)
    spread_B1 = draws.uniform("stochastic/spread", 1, low=0.4, high=1.0)
    log_deviation_BT = autoregression(draws.normal("stochastic/shock", shock_BT.shape[1]), keep_B)
    return shock_BT * np.exp(spread_B1 * (log_deviation_BT - spread_B1))


def _switching(draws: Draws, shock_BT: np.ndarray) -> np.ndarray:
    """Every other spell is wild, three to ten times as much as the calm ones, and shorter."""
    calm_B2 = draws.log_uniform("switching/calm", 1, low=40.0, high=400.0) * np.array([1.0, 0.4])
    num_steps = shock_BT.shape[1]
    # The first spell of half the series is wild.
    calm_B2 = np.where(draws.happens("switching/wild_first", 1, probability=0.5), calm_B2[:, ::-1], calm_B2)
    spell = stretches(draws, "spell", np.tile(calm_B2, num_steps), _SHORTEST_SPELL, num_steps)
    wild_BT = (calm_B2[:, :1] < calm_B2[:, 1:]) ^ (spell.number_BT % 2 == 1)
    wilder_B1 = draws.log_uniform("switching/wilder", 1, low=3.0, high=10.0)
    return shock_BT * np.where(wild_BT, np.sqrt(wilder_B1), 1 / np.sqrt(wilder_B1))


def _jumps(draws: Draws, shock_BT: np.ndarray) -> np.ndarray:
    probability_B1 = draws.log_uniform("jumps/probability", 1, low=1 / 300, high=1 / 30)
    jumps_BT = draws.happens("jumps/happen", shock_BT.shape[1], probability=probability_B1)
    size_B1 = draws.log_uniform("jumps/size", 1, low=4.0, high=12.0)
    # Most series jump to both sides, some crash and some leap.
    side_B1 = draws.pick("jumps/side", (-1.0, 0.0, 0.0, 1.0))[:, None]
    return shock_BT + jumps_BT * size_B1 * (side_B1 + 0.3 * shock_BT)


def _rate(draws: Draws, shock_BT: np.ndarray) -> np.ndarray:
    """A half-life of 2 .. 700 steps; positive, as the exponential of such a rate, in half the series."""
    keep_B = 0.5 ** (1 / draws.log_uniform("rate/half_life", low=2.0, high=700.0))
    rate_BT = autoregression(shock_BT, keep_B)
    spread_B1 = draws.uniform("rate/spread", 1, low=0.1, high=0.8)
    positive_B = draws.happens("rate/positive", probability=0.5)
    series_BT = shifted_and_scaled(draws, rate_BT)
    series_BT[positive_B] = scaled(draws.rows(positive_B), np.exp(spread_B1 * rate_BT)[positive_B])
    return series_BT


def _returns(draws: Draws, return_BT: np.ndarray) -> np.ndarray:
    return return_BT * draws.log_uniform("returns/deviation", 1, low=1e-3, high=3.0)


def _prices(draws: Draws, return_BT: np.ndarray) -> np.ndarray:
    deviation_B1 = draws.log_uniform("prices/deviation", 1, low=2e-3, high=4e-2)
    drift_B1 = 0.03 * draws.normal("prices/drift", 1)
    risen_BT = np.cumsum(deviation_B1 * (return_BT + drift_B1), axis=1)
    # A walk between two mirrors.
    turned_BT = np.abs((risen_BT + 3 * _LARGEST_RISE) % (4 * _LARGEST_RISE) - 2 * _LARGEST_RISE) - _LARGEST_RISE
    return scaled(draws, np.exp(turned_BT))


PROCESS = StochasticProcess(
    name="volatility",
    sentence="Prices, returns and rates with calm and wild times, fat tails and jumps.",
    settings=VolatilityConfig,
    generate=generate,
    kinds=kinds,
)
