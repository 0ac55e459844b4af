"""Sliding windows: all windows of channels, one step apart, as the LTSF protocol scores them.

Axes: N windows (channel by channel), C channels, T time, L context steps, H horizon steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from foreloom.data.forecast_input import ForecastInput
from foreloom.data.source import Source
from foreloom.evaluation.season import season_length as season_of

WindowProtocol = Literal["standard", "timemoe"]
"""`timemoe` leaves out each channel's last window, as Time-MoE's own evaluation does and its published scores were
made."""


@dataclass(frozen=True)
class Channel:
    """One univariate series."""

    name: str
    values_T: np.ndarray
    """float32, NaN is missing."""
    season_length: int
    """Steps of a season, for the seasonal naive forecast."""


class Piece(NamedTuple):
    """Consecutive windows of one channel."""

    channel: Channel
    first: int
    """Step at which the first window's context begins."""
    num_windows: int


@dataclass(frozen=True)
class SlidingWindows:
    """Every window of `context_length` + `prediction_length` steps of every channel, numbered channel by channel."""

    channels: tuple[Channel, ...]
    context_length: int
    prediction_length: int
    protocol: WindowProtocol

    def __post_init__(self) -> None:
        if not self.num_windows:
            need = self.context_length + self.prediction_length + (self.protocol == "timemoe")
            longest = max((len(channel.values_T) for channel in self.channels), default=0)
            raise ValueError(
                f"none of the {len(self.channels):,} series is long enough: a context of {self.context_length:,} and a "
                f"horizon of {self.prediction_length:,} steps need {need:,} (protocol {self.protocol}), the longest "
                f"has {longest:,}. Use a shorter context or horizon."
            )

    @cached_property
    def first_window_C(self) -> np.ndarray:
        """int64 (C + 1,): the number of each channel's first window; last, how many there are."""
        steps = self.context_length + self.prediction_length
        lengths_C = np.array([len(channel.values_T) for channel in self.channels], dtype=np.int64)
        num_C = np.maximum(lengths_C - steps + (self.protocol == "standard"), 0)
        return np.concatenate([[0], np.cumsum(num_C)])

    @property
    def num_windows(self) -> int:
        return int(self.first_window_C[-1])

    def pieces(self, first: int, last: int) -> Iterator[Piece]:
        """The windows `first` to `last` (left out), channel by channel."""
        while first < last:
            c = int(np.searchsorted(self.first_window_C, first, side="right")) - 1
            end = min(last, int(self.first_window_C[c + 1]))
            yield Piece(self.channels[c], first - int(self.first_window_C[c]), end - first)
            first = end

    def inputs(self, piece: Piece) -> list[ForecastInput]:
        """What a forecaster sees of the windows: views, nothing is copied."""
        context_NL = sliding_window_view(piece.channel.values_T, self.context_length)
        unknown_1H = np.full((1, self.prediction_length), np.nan, dtype=np.float32)
        starts = range(piece.first, piece.first + piece.num_windows)
        return [ForecastInput(context_NL[start : start + 1], unknown_1H, num_targets=1) for start in starts]

    def labels_NH(self, piece: Piece) -> np.ndarray:
        """float32, what came: a view."""
        ahead_T = piece.channel.values_T[self.context_length :]
        return sliding_window_view(ahead_T, self.prediction_length)[piece.first : piece.first + piece.num_windows]


def channels_of(source: Source, season_length: int | None = None) -> tuple[Channel, ...]:
    """Every target of every series in raw values; the season by each series' frequency unless it is given."""
    channels = []
    for item in range(len(source)):
        series = source.read(item)
        season = season_length or (season_of(series.freq) if series.freq else 1)
        several = len(series.target_VT) > 1
        channels += [
            Channel(f"{series.item_id}[{v}]" if several else series.item_id, as_float32(values_T), season)
            for v, values_T in enumerate(series.target_VT)
        ]
    return tuple(channels)


def as_float32(values: np.ndarray) -> np.ndarray:
    """float32 with infinite values as missing ones."""
    values = np.asarray(values, dtype=np.float32)
    return np.where(np.isinf(values), np.float32(np.nan), values)
