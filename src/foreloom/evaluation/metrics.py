"""Forecast metrics as sums that add: over batches, over ranks, over tasks; the division comes last.

Axes: S windows (one target of one cut), H horizon steps, Q quantile levels, I central intervals, V variates, T time.
Definitions are those of GluonTS's `gluonts.ev`: steps with a missing label are left out of every metric; scaled errors
leave out windows whose seasonal error is zero or unknown. `GroupedSums` keeps the sums of each window and target apart,
for suites that average over those (fev).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add
from typing import Any, Protocol, Self

import numpy as np

METRICS = ("WQL", "MASE", "MAE", "MSE", "RMSE", "sMAPE", "SQL", "CRPS", "WAPE")
"""Every metric but coverage; lower is better for all of them."""
BAND_ENDS = (0.05, 0.1, 0.25, 0.75, 0.9, 0.95)
"""Levels between which the central 50, 80 and 90 % of a calibrated forecast lie."""
LEAST_SCALE = 1.0
"""fev-bench's epsilon: WAPE and WQL divide by at least this mean |label|, so that targets near zero do not explode."""

Group = tuple[int, int]
"""Number of the window in its series, number of the target: what `GroupedSums` keeps apart."""


class BrokenForecastError(ValueError):
    """A forecast that holds NaN or infinity."""


def seasonal_error(past_VT: np.ndarray, season_length: int) -> np.ndarray:
    """Mean |y_t - y_(t-m)| of each row of a past, (V,) float64: the in-sample error of the seasonal naive forecast.

    Pairs with a missing or infinite value are skipped; m is 1 where the past has no pair m steps apart. NaN where no
    pair is left.
    """
    past_VT = np.asarray(past_VT, dtype=np.float64)
    m = season_length if season_length < past_VT.shape[-1] else 1
    past_VT = np.where(np.isfinite(past_VT), past_VT, np.nan)
    error_VT = np.abs(past_VT[:, m:] - past_VT[:, :-m])
    num_V = np.isfinite(error_VT).sum(axis=-1)
    return np.divide(np.nansum(error_VT, axis=-1), num_V, out=np.full(len(past_VT), np.nan), where=num_V > 0)


def central_intervals(quantile_levels: Sequence[float]) -> list[tuple[int, int, int]]:
    """Pairs of levels around the median as (percent covered if calibrated, index of lower, index of upper)."""
    pairs = []
    for lower, level in enumerate(quantile_levels):
        for upper, other in enumerate(quantile_levels):
            if level < other and abs(level + other - 1) < 1e-9:
                pairs.append((round(100 * (other - level)), lower, upper))
    return sorted(pairs)


@dataclass(frozen=True)
class MetricSums:
    """What a set of windows adds up to, float64. `a + b` is the sums of both sets; `scores()` divides."""

    quantile_levels: tuple[float, ...]
    """Whose loss is scored."""
    bands: tuple[int, ...]
    """The central intervals whose coverage is counted, in percent."""
    num_windows: np.ndarray
    num_points: np.ndarray
    """Observed labels."""
    abs_label: np.ndarray
    abs_error: np.ndarray
    """Of the median forecast, as are the next three."""
    squared_error: np.ndarray
    symmetric_error: np.ndarray
    """2|y - f| / (|y| + |f|), steps where both are 0 left out."""
    num_symmetric: np.ndarray
    scaled_error: np.ndarray
    num_scaled: np.ndarray
    quantile_loss_Q: np.ndarray
    """2 |(y - q)(1[y <= q] - level)|."""
    scaled_quantile_loss_Q: np.ndarray
    covered_I: np.ndarray
    """Labels inside each central interval, its ends included."""

    @classmethod
    def zero(cls, quantile_levels: Sequence[float], asked: Sequence[float] | None = None) -> MetricSums:
        """The sums of no windows: where every accumulation starts. The levels must hold 0.5; `asked` are those that
        forecasts hold, where these are more."""
        levels = tuple(quantile_levels)
        if 0.5 not in levels:
            raise ValueError(f"quantile_levels {list(levels)} lack 0.5: MASE, MAE, MSE and sMAPE score the median.")
        bands = tuple(percent for percent, *_ in central_intervals(asked or levels))
        sizes = {"Q": len(levels), "I": len(bands)}
        return cls(levels, bands, *(np.zeros(sizes.get(name[-1], ())) for name in _SUMMED))

    def __add__(self, other: MetricSums) -> Self:
        assert (self.quantile_levels, self.bands) == (other.quantile_levels, other.bands)
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in _SUMMED})

    @property
    def pooled(self) -> MetricSums:
        """Themselves: there are no groups."""
        return self

    def vector(self) -> np.ndarray:
        """Every sum in one float64 vector, for one all-reduce."""
        return np.concatenate([np.atleast_1d(getattr(self, name)) for name in _SUMMED])

    def with_vector(self, vector: np.ndarray) -> Self:
        """The sums that `vector()` of this shape would give back as `vector`."""
        shapes = [getattr(self, name).shape for name in _SUMMED]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        pieces = np.split(np.asarray(vector, dtype=np.float64), ends[:-1])
        return replace(self, **{n: p.reshape(s) for n, p, s in zip(_SUMMED, pieces, shapes, strict=True)})

    def scores(self) -> dict[str, float]:
        """WQL, MASE, MAE, MSE, RMSE, sMAPE, SQL, CRPS, WAPE and coverage_<percent>; NaN where nothing can be scored.

        WQL: mean over levels of the summed quantile loss over the summed |label|. WAPE: the summed |error| over the
        summed |label|. MASE: mean over windows and steps of |error| / seasonal error. SQL: the quantile loss scaled
        likewise, mean over levels. CRPS: mean over levels and points of the quantile loss, in the data's units.
        Coverage: share of labels inside each central interval.
        """
        mse = _ratio(self.squared_error, self.num_points)
        return {
            "WQL": _ratio(self.quantile_loss_Q.mean(), self.abs_label),
            "MASE": _ratio(self.scaled_error, self.num_scaled),
            "MAE": _ratio(self.abs_error, self.num_points),
            "MSE": mse,
            "RMSE": mse**0.5,
            "sMAPE": _ratio(self.symmetric_error, self.num_symmetric),
            "SQL": _ratio(self.scaled_quantile_loss_Q.mean(), self.num_scaled),
            "CRPS": _ratio(self.quantile_loss_Q.mean(), self.num_points),
            "WAPE": _ratio(self.abs_error, self.abs_label),
        } | {
            f"coverage_{percent}": _ratio(covered, self.num_points)
            for percent, covered in zip(self.bands, self.covered_I, strict=True)
        }


_SUMMED = [field.name for field in fields(MetricSums) if field.name not in ("quantile_levels", "bands")]


class Sums(Protocol):
    """What an evaluation adds up: `MetricSums`, or `GroupedSums`. Both sides of a `+` are of one kind."""

    @property
    def num_windows(self) -> np.ndarray: ...

    @property
    def num_points(self) -> np.ndarray: ...

    @property
    def pooled(self) -> MetricSums: ...

    def __add__(self, other: Any, /) -> Self: ...

    def vector(self) -> np.ndarray: ...

    def with_vector(self, vector: np.ndarray) -> Self: ...

    def scores(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class GroupedSums:
    """What a set of windows adds up to, a `MetricSums` a group; it adds, travels and scores as one `MetricSums` does.

    A sum over some of the windows may hold some of the groups.
    """

    groups: Mapping[Group, MetricSums]

    @classmethod
    def zero(
        cls, groups: Iterable[Group], quantile_levels: Sequence[float], asked: Sequence[float] | None = None
    ) -> Self:
        """The sums of no windows, with a place for every group."""
        return cls({group: MetricSums.zero(quantile_levels, asked) for group in sorted(set(groups))})

    def __add__(self, other: GroupedSums) -> Self:
        """`self` with the groups of `other` added, all of which it must have."""
        assert other.groups.keys() <= self.groups.keys()
        added = {group: self.groups[group] + sums for group, sums in other.groups.items()}
        return type(self)({**self.groups, **added})

    @property
    def pooled(self) -> MetricSums:
        """The sums of all groups together."""
        return reduce(add, self.groups.values())

    @property
    def num_windows(self) -> np.ndarray:
        return self.pooled.num_windows

    @property
    def num_points(self) -> np.ndarray:
        return self.pooled.num_points

    def vector(self) -> np.ndarray:
        """Every sum in one float64 vector, for one all-reduce."""
        return np.concatenate([sums.vector() for sums in self.groups.values()])

    def with_vector(self, vector: np.ndarray) -> Self:
        """The sums that `vector()` of these groups would give back as `vector`."""
        pieces = np.split(vector, len(self.groups))
        return type(self)(
            {group: sums.with_vector(piece) for (group, sums), piece in zip(self.groups.items(), pieces, strict=True)}
        )

    def scores(self) -> dict[str, float]:
        """The scores of all points together, but SQL, MASE, WAPE and WQL as means over groups of each one's own.

        Groups that cannot be scored are left out. Those of fev 0.8: `autogluon/fev`, fev/metrics.py.
        """
        own = [_fev_scores(sums) for sums in self.groups.values()]
        means = {}
        for metric in own[0]:
            values = [scores[metric] for scores in own if np.isfinite(scores[metric])]
            means[metric] = float(np.mean(values)) if values else float("nan")
        return self.pooled.scores() | means


def metric_sums(
    forecast_SHQ: np.ndarray,
    label_SH: np.ndarray,
    seasonal_error_S: np.ndarray,
    quantile_levels: Sequence[float],
    names_S: Sequence[str],
    scored: Sequence[float] | None = None,
) -> MetricSums:
    """The sums of S windows, computed in float64.

    `scored` are those of the `quantile_levels` whose loss counts (default: all); the rest say what bands cover.
    `seasonal_error_S` is of each window's whole past. `names_S` say which series each window is of, for the
    `BrokenForecastError` (a ValueError) raised when a forecast holds NaN or infinity.
    """
    asked = tuple(quantile_levels)
    zero = MetricSums.zero(asked if scored is None else scored, asked)
    levels_Q = np.asarray(zero.quantile_levels, dtype=np.float64)
    forecast_SHQ = np.asarray(forecast_SHQ, dtype=np.float64)
    broken_SH = ~np.isfinite(forecast_SHQ).all(axis=-1)
    if broken_SH.any():
        s, step = np.argwhere(broken_SH)[0]
        raise BrokenForecastError(
            f"The forecast of {names_S[s]} is not finite at step {step + 1} of the horizon "
            f"({forecast_SHQ[s, step].tolist()}), so it cannot be scored. Look at the model's weights and that series."
        )
    label_SH = np.asarray(label_SH, dtype=np.float64)
    observed_SH = np.isfinite(label_SH)
    label_SH = np.where(observed_SH, label_SH, 0.0)
    median_SH = forecast_SHQ[..., asked.index(0.5)]
    error_SH = np.where(observed_SH, np.abs(label_SH - median_SH), 0.0)
    size_SH = np.where(observed_SH, np.abs(label_SH) + np.abs(median_SH), 0.0)
    scale_S1 = _scale(seasonal_error_S)[:, None]
    inverse_S1 = np.divide(1.0, scale_S1, out=np.zeros_like(scale_S1), where=scale_S1 > 0)

    covered = [
        ((forecast_SHQ[..., lower] <= label_SH) & (label_SH <= forecast_SHQ[..., upper]) & observed_SH).sum()
        for _, lower, upper in central_intervals(asked)
    ]
    if zero.quantile_levels != asked:
        forecast_SHQ = forecast_SHQ[..., [asked.index(level) for level in zero.quantile_levels]]
    below_SHQ = label_SH[..., None] <= forecast_SHQ
    loss_SHQ = 2 * np.abs((label_SH[..., None] - forecast_SHQ) * (below_SHQ - levels_Q)) * observed_SH[..., None]
    return replace(
        zero,
        num_windows=np.array(float(len(label_SH))),
        num_points=observed_SH.sum(dtype=np.float64),
        abs_label=np.abs(label_SH).sum(),
        abs_error=error_SH.sum(),
        squared_error=np.square(error_SH).sum(),
        symmetric_error=np.divide(2 * error_SH, size_SH, out=np.zeros_like(size_SH), where=size_SH > 0).sum(),
        num_symmetric=(size_SH > 0).sum(dtype=np.float64),
        scaled_error=(error_SH * inverse_S1).sum(),
        num_scaled=(observed_SH & (scale_S1 > 0)).sum(dtype=np.float64),
        quantile_loss_Q=loss_SHQ.sum(axis=(0, 1)),
        scaled_quantile_loss_Q=(loss_SHQ * inverse_S1[..., None]).sum(axis=(0, 1)),
        covered_I=np.asarray(covered, dtype=np.float64),
    )


def window_errors(median_SH: np.ndarray, label_SH: np.ndarray, seasonal_error_S: np.ndarray) -> np.ndarray:
    """MASE of each window alone, (S,); NaN where it has no observed label or no scale."""
    label_SH = np.asarray(label_SH, dtype=np.float64)
    error_SH = np.abs(np.where(np.isfinite(label_SH), label_SH, np.nan) - median_SH)
    num_S = np.isfinite(error_SH).sum(axis=-1)
    divisor_S = num_S * _scale(seasonal_error_S)
    return np.divide(np.nansum(error_SH, axis=-1), divisor_S, out=np.full(len(error_SH), np.nan), where=divisor_S > 0)


def window_squared_errors(median_SH: np.ndarray, label_SH: np.ndarray) -> np.ndarray:
    """MSE of each window alone, (S,) float64; NaN where it has no observed label."""
    label_SH = np.asarray(label_SH, dtype=np.float64)
    square_SH = np.square(np.where(np.isfinite(label_SH), label_SH, np.nan) - median_SH)
    num_S = np.isfinite(label_SH).sum(axis=-1)
    return np.divide(np.nansum(square_SH, axis=-1), num_S, out=np.full(len(label_SH), np.nan), where=num_S > 0)


def _fev_scores(sums: MetricSums) -> dict[str, float]:
    scores = sums.scores()
    if not sums.num_points:
        return {metric: float("nan") for metric in ("SQL", "MASE", "WAPE", "WQL")}
    scale = max(float(sums.abs_label / sums.num_points), LEAST_SCALE)
    return {
        "SQL": scores["SQL"],
        "MASE": scores["MASE"],
        "WAPE": float(sums.abs_error / sums.num_points) / scale,
        "WQL": float(sums.quantile_loss_Q.mean() / sums.num_points) / scale,
    }


def _scale(seasonal_error_S: np.ndarray) -> np.ndarray:
    """Unknown scales as 0, which is left out like a true 0."""
    return np.nan_to_num(np.asarray(seasonal_error_S, dtype=np.float64), nan=0.0)


def _ratio(total: np.ndarray, count: np.ndarray) -> float:
    return float(total / count) if count > 0 else float("nan")
