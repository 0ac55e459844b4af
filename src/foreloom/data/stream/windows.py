"""Windows: rows cut out of series, the one form in which data reaches a model family.

Axes: R rows (one row = one variate of one sample), C context steps, H horizon steps, T both together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from foreloom import subnormals
from foreloom.data.hashing import random_bits, uniform
from foreloom.data.source import Prepares, Source
from foreloom.data.stream.draw import Samples
from foreloom.data.stream.normalization import Normalization, SeriesScales, center_and_scale, drowning_levels

_MOST_ROWS = 2**20
"""Of one sample."""
_NARROW = 2.0**-8
"""A context of up to 32,768 steps whose range is a larger share of its values than this hides no moves in a level: its
deviation is at least a 256th of its range."""


class Role(IntEnum):
    """What a row is to the model."""

    TARGET = 0
    """To be forecast."""
    PAST = 1
    """A covariate known up to the cut only."""
    FUTURE = 2
    """A covariate known over the horizon too."""


_ROLES = np.array([Role.TARGET, Role.PAST, Role.FUTURE], dtype=np.int8)


@dataclass(frozen=True)
class Windows:
    """The rows of one micro-batch. NaN is missing; padding is missing too."""

    context_RC: np.ndarray
    """float32, the values before the cut, left-padded with NaN to the longest context of the micro-batch."""
    future_RH: np.ndarray
    """float32, the values from the cut on, whatever the role: each family masks what it must not see."""
    role_R: np.ndarray
    """int8, a `Role` a row."""
    group_R: np.ndarray
    """int64, rows of one sample share an id; ids are unique within the micro-batch."""
    sample_R: np.ndarray
    """int64, the sample's index in the stream (-1 where the rows do not come from a stream)."""
    source_R: np.ndarray
    """int32, index of the source in the mixture."""
    item_R: np.ndarray
    """int64, row of the series in its source."""
    horizon_only: bool = False
    """Nothing before the cut counts in the loss, whatever a family learns from in training: so it is in validation."""

    @property
    def num_rows(self) -> int:
        return len(self.role_R)

    @property
    def size(self) -> str:
        num_steps, horizon = self.context_RC.shape[1], self.future_RH.shape[1]
        rows = "1 row" if self.num_rows == 1 else f"{self.num_rows} rows"
        return f"{rows} with {num_steps} context and {horizon} future steps"

    def masked(self) -> Windows:
        """The same without a single value to be forecast: something to run that counts 0."""
        return replace(
            self,
            future_RH=np.full_like(self.future_RH, np.nan),
            sample_R=np.full_like(self.sample_R, -1),
            horizon_only=True,
        )


@subnormals.kept()
@np.errstate(over="ignore", invalid="ignore")  # what float32 cannot hold becomes infinite, and so missing
def gather(
    sources: Sequence[Source],
    samples: Samples,
    positions: np.ndarray,
    *,
    context_length: int,
    prediction_length: int,
    allow_missing: bool = True,
    normalization: Normalization = "none",
    series_scales: SeriesScales | None = None,
    dropping: Dropping | None = None,
) -> Windows:
    """Cut the samples at `positions` out of their series, as one micro-batch.

    A sample's members are one group. Infinite values count as missing. Rows are normalised each on its own: by
    `series_scales` where given, else by their context, and then a row with nothing observed there is missing. Where
    they are not, a row whose moves float32 would lose in its level is given without it (see `drowning_levels`). Before
    all that, `dropping` takes values of targets away. Raises ValueError where a value is missing and `allow_missing` is
    false.
    """
    num_rows = int(samples.num_rows_N[positions].sum())
    num_steps = int(samples.length_N[positions].max(initial=0))
    dtype = np.float32 if normalization == "none" else np.float64
    context_RC = np.full((num_rows, min(num_steps, context_length)), np.nan, dtype=dtype)
    future_RH = np.full((num_rows, prediction_length), np.nan, dtype=dtype)
    role_R = np.empty(num_rows, dtype=np.int8)
    members: list[int] = []
    first_row_of: list[int] = []
    item_R = np.empty(num_rows, dtype=np.int64)
    prepare(sources, [(samples, positions)])
    row = 0
    for position in positions:
        source = sources[samples.source_N[position]]
        for member in range(samples.offsets_N[position], samples.offsets_N[position + 1]):
            item, cut = int(samples.item_M[member]), int(samples.cut_M[member])
            end = row + int(source.num_rows[item])
            counts = source.fill_window(item, cut, context_RC[row:end], future_RH[row:end])
            role_R[row:end] = np.repeat(_ROLES, counts)
            item_R[row:end] = item
            members.append(member)
            first_row_of.append(row)
            if not allow_missing:
                _refuse_missing(source, item, cut, context_RC[row:end], future_RH[row:end])
            row = end
    source_M = np.repeat(samples.source_N[positions], np.diff(samples.offsets_N)[positions])
    if normalization == "none":
        for m in _narrow_members(first_row_of, context_RC):
            rows = slice(first_row_of[m], [*first_row_of, num_rows][m + 1])
            item, cut = int(samples.item_M[members[m]]), int(samples.cut_M[members[m]])
            _take_off_levels(sources[source_M[m]], item, cut, context_RC[rows], future_RH[rows])
    rows_of_sample = samples.num_rows_N[positions]
    sample_R = np.repeat(samples.first + positions, rows_of_sample)
    if dropping is not None:
        _drop(dropping, context_RC, future_RH, role_R, sample_R)
    if normalization != "none":
        if series_scales is None:
            center_R, scale_R = center_and_scale(context_RC, normalization)
            # With nothing observed before the cut there is no scale, and raw values would drown all others.
            future_RH[~np.isfinite(context_RC).any(axis=1)] = np.nan
        else:
            center_R, scale_R = series_scales.of(source_M, samples.item_M[members])
        context_RC = _scaled(context_RC, center_R, scale_R)
        future_RH = _scaled(future_RH, center_R, scale_R)
    for values in (context_RC, future_RH):
        values[np.isinf(values)] = np.nan
    return Windows(
        context_RC=context_RC,
        future_RH=future_RH,
        role_R=role_R,
        group_R=np.repeat(np.arange(len(positions)), rows_of_sample),
        sample_R=sample_R,
        source_R=np.repeat(samples.source_N[positions], rows_of_sample),
        item_R=item_R,
    )


def _narrow_members(first_row_of: Sequence[int], context_RC: np.ndarray) -> list[int]:
    """Those of the series that the rows are of, told by their first ones, of which float32 may have lost moves."""
    low_R, high_R = np.fmin.reduce(context_RC, axis=1), np.fmax.reduce(context_RC, axis=1)
    narrow = np.flatnonzero(high_R - low_R < _NARROW * np.abs(high_R))
    return np.unique(np.searchsorted(first_row_of, narrow, side="right") - 1).tolist() if len(narrow) else []


def _take_off_levels(source: Source, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> None:
    """Read the window of a series again, in float64, and write rows that hide moves in their level without it."""
    whole_RC, whole_RH = np.full(context_RC.shape, np.nan), np.full(future_RH.shape, np.nan)
    source.fill_window(item, cut, whole_RC, whole_RH)
    level_R = drowning_levels(whole_RC)
    rows = np.flatnonzero(level_R)
    context_RC[rows] = whole_RC[rows] - level_R[rows, None]
    future_RH[rows] = whole_RH[rows] - level_R[rows, None]


def prepare(sources: Sequence[Source], parts: Sequence[tuple[Samples, np.ndarray]]) -> None:
    """Tell the sources that want to know it which series come: those of the positions of each part."""
    for number, source in enumerate(sources):
        if isinstance(source, Prepares):
            places = [
                samples.item_M[samples.offsets_N[n] : samples.offsets_N[n + 1]]
                for samples, positions in parts
                for n in positions[samples.source_N[positions] == number]
            ]
            if places:
                source.prepare(np.concatenate(places))


def _drop(
    dropping: Dropping, context_RC: np.ndarray, future_RH: np.ndarray, role_R: np.ndarray, sample_R: np.ndarray
) -> None:
    """Take values away, in place; covariates keep theirs."""
    num_steps, num_ahead = context_RC.shape[1], future_RH.shape[1]
    row_R = np.arange(len(sample_R))
    first_row_R = np.maximum.accumulate(np.where(np.diff(sample_R, prepend=-1) != 0, row_R, 0))
    lost_RT = dropping.lost(sample_R, row_R - first_row_R, num_steps, num_ahead)
    lost_RT &= (role_R == Role.TARGET)[:, None]
    context_RC[lost_RT[:, :num_steps]] = np.nan
    future_RH[lost_RT[:, num_steps:]] = np.nan


def _scaled(values_RT: np.ndarray, center_R: np.ndarray, scale_R: np.ndarray) -> np.ndarray:
    return ((values_RT - center_R[:, None]) / scale_R[:, None]).astype(np.float32)


def _refuse_missing(source: Source, item: int, cut: int, context_RC: np.ndarray, future_RH: np.ndarray) -> None:
    num_steps = min(cut, context_RC.shape[1])
    observed = np.isfinite(context_RC[:, context_RC.shape[1] - num_steps :]).all() and np.isfinite(future_RH).all()
    if not observed:
        raise ValueError(
            f"{source.name}: series {source.read(item).item_id!r} (row {item}) has missing values around step {cut}, "
            "and data.allow_missing is false. Fill them, or set data.allow_missing=true for a family that takes them."
        )


@dataclass(frozen=True)
class Dropping:
    """Which values are made missing while training, so that a model learns to forecast from what is there.

    As Chronos-T5 trains: a sample draws a share, and loses each of its values with that probability; which ones is a
    pure function of (seed, stream, sample, row of the sample, step from the cut).
    """

    most: float
    """A sample's share is uniform from 0 to this."""
    seed: int
    stream: str

    def lost(self, sample_R: np.ndarray, place_R: np.ndarray, num_steps: int, num_ahead: int) -> np.ndarray:
        """bool (R, T): of `num_steps` values before the cut and `num_ahead` from it on, those that become missing.

        Rows are the `place_R`-th of the samples `sample_R`, int64 each. What a row loses does not depend on how wide a
        context it is given.
        """
        share_R = self.most * uniform(self.seed, self.stream, "drop share", sample_R)
        row_R = random_bits(self.seed, self.stream, "drop row", sample_R * _MOST_ROWS + place_R)
        step_T = np.arange(-num_steps, num_ahead).astype(np.uint64)
        return uniform(self.seed, self.stream, "drop step", row_R[:, None] + step_T) < share_R[:, None]
