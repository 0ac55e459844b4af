"""The series of a run as samples: windows of a mixture of sources, cut where a stream says.

Axes: N samples, M series of all samples together, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from foreloom.data.batch import SourceStatistics
from foreloom.data.config import DataConfig
from foreloom.data.formats.reader import open_source
from foreloom.data.source import VARIATES, Source, read_in_turn
from foreloom.data.stream.draw import Samples, SampleStream, StridedStream
from foreloom.data.stream.normalization import SeriesScales
from foreloom.data.stream.replay import ReplayedWindow, replay
from foreloom.data.stream.selection import read_excluded, select
from foreloom.data.stream.windows import Dropping, Windows, gather, prepare
from foreloom.data.tables.options import TableOptions

_MOST_FILES = 256
"""Of a source with more, only the source as a whole is named where it has changed."""
_LOOKED_AT = 16
"""Series of a source, evenly chosen, for the names of covariates."""
_DECIDE_NOTHING = ("num_prefetch", "exclude")
"""Settings that have no say in what a sample is; of what is excluded, the series that the files name have."""


class SeriesDataset:
    """`batch.Dataset` over series. `sources` replaces the opened `config.sources` (a test, series in memory), in the
    same order."""

    def __init__(
        self,
        config: DataConfig,
        *,
        seed: int,
        stream: str = "train",
        sources: Sequence[Source] | None = None,
    ):
        self.config = config
        opened = (open_source(one.path, table=one.table or TableOptions()) for one in config.sources)
        self.sources = list(opened if sources is None else sources)
        """As the mixture has them."""
        self._excluded = read_excluded(config.exclude, self.sources)
        self._selections = [
            select(source, config.min_length, one.max_series, one.holdout, excluded)
            for source, one, excluded in zip(self.sources, config.sources, self._excluded, strict=True)
        ]
        kind = SampleStream if config.stride is None else StridedStream
        self._stream = kind(self.sources, self._selections, config, seed=seed, stream=stream)
        self._series_scales = None
        if config.normalization_scope == "series":
            lengths = [selection.lengths for selection in self._selections]
            self._series_scales = SeriesScales(self.sources, lengths, config.normalization)
        self._dropping = Dropping(config.drop_values, seed, stream) if config.drop_values else None
        self.made_of: Mapping[str, str] = _made_of(self.sources, config, seed, stream, self._excluded)
        self.fingerprint = blake2b(repr(sorted(self.made_of.items())).encode(), digest_size=16).hexdigest()
        self.num_epoch_samples = self.num_sample_rows = None
        if isinstance(self._stream, StridedStream):
            self.num_epoch_samples, self.num_sample_rows = self._stream.num_windows, self._stream.num_sample_rows

    def draw(self, first: int, count: int) -> Samples:
        """Samples first, ..., first + count - 1."""
        return self._stream.draw(first, count)

    def gather(self, drawn: Samples, positions: np.ndarray) -> Windows:
        """Those of the drawn samples, cut out of their series."""
        return gather(
            self.sources,
            drawn,
            positions,
            context_length=self.config.context_length,
            prediction_length=self.config.prediction_length,
            allow_missing=self.config.allow_missing,
            normalization=self.config.normalization,
            series_scales=self._series_scales,
            dropping=self._dropping,
        )

    def prepare(self, parts: Sequence[tuple[Samples, np.ndarray]]) -> None:
        """See `batch.PreparesSamples`."""
        prepare(self.sources, parts)

    def largest(self, num_rows: int) -> Windows:
        """At least `num_rows` rows at the full lengths, nothing missing, grouped as the first samples of the stream
        are: group attention costs what it costs in the run."""
        drawn = self._stream.draw(0, num_rows)
        rows_after_N = np.cumsum(drawn.num_rows_N)
        positions = np.arange(int(np.searchsorted(rows_after_N, num_rows)) + 1)
        if drawn.num_rows_N.max() > rows_after_N[positions[-1]]:
            positions = np.array([int(drawn.num_rows_N.argmax())])
        windows = self.gather(drawn, positions)
        whole = lambda length: np.tile(np.sin(np.arange(length, dtype=np.float32)), (windows.num_rows, 1))
        return replace(
            windows,
            context_RC=whole(self.config.context_length),
            future_RH=whole(self.config.prediction_length),
            sample_R=np.full(windows.num_rows, -1),
        )

    def replay(self, drawn: Samples) -> list[ReplayedWindow]:
        """The windows of the drawn samples as they lie in the data, member by member."""
        return replay(drawn, self.sources, self.config)

    def facts(self, drawn: Samples) -> list[dict[str, Any]]:
        """`WindowFacts` of each member."""
        return [asdict(window.facts) for window in self.replay(drawn)]

    def statistics(self) -> list[SourceStatistics]:
        """Each source of the mixture, in the recipe's order."""
        stream = self._stream
        num_windows: list[int | None] = [None] * len(self.sources)
        shares = np.array([one.weight for one in self.config.sources])
        if isinstance(stream, StridedStream):
            num_windows = [stream.num_windows_of(number) for number in range(len(self.sources))]
            shares = np.array(num_windows)
        return [
            SourceStatistics(
                name=source.name,
                share=float(share),
                num_items=len(selection.items),
                num_bytes=source.num_bytes,
                left_out={"too short": selection.num_short, "excluded": len(excluded)},
                num_epoch_samples=count,
                roles=_roles(source, selection.items),
            )
            for source, selection, share, count, excluded in zip(
                self.sources, self._selections, shares / shares.sum(), num_windows, self._excluded, strict=True
            )
        ]


def _roles(source: Source, items: np.ndarray) -> str:
    """Of the series `items`: targets, and every covariate: `1 target; past: visits; known ahead: price; static: shop`.

    Looked at are one series of each number of covariates, and some more.
    """
    fewest, most = (int(bound(source.num_targets[items])) for bound in (np.min, np.max))
    targets = f"{fewest} to {most} targets" if fewest < most else f"{most} target{'' if most == 1 else 's'}"
    of_each_number = np.unique((source.num_rows - source.num_targets)[items], return_index=True)[1]
    chosen = np.union1d(of_each_number, np.linspace(0, len(items) - 1, _LOOKED_AT).astype(int))
    known: dict[str, set[str]] = {"past": set(), "known ahead": set(), "static": set()}
    for one in read_in_turn(source, items[chosen]):
        known["past"].update(one.past)
        known["known ahead"].update(one.future)
        known["static"].update(set(one.static) - {VARIATES})
    return "; ".join([targets, *(f"{role}: {', '.join(sorted(names))}" for role, names in known.items() if names)])


def _made_of(
    sources: Sequence[Source], config: DataConfig, seed: int, stream: str, excluded: Sequence[np.ndarray]
) -> dict[str, str]:
    """All that decides what sample i is, by setting and file. Paths do not, nor does reading ahead."""
    decides = {
        f"data.{name}": getattr(config, name)
        for name in config.__dataclass_fields__
        if name not in (*_DECIDE_NOTHING, "sources")
    }
    decides |= {"training.seed": seed, "the stream": stream, "the order of samples": "version 3"}
    for number, (one, source, items) in enumerate(zip(config.sources, sources, excluded, strict=True)):
        key = f"data.sources.{number}"
        decides |= {f"{key}.{name}": value for name, value in asdict(one).items() if name != "path"}
        if len(items):
            left_out = blake2b(items.tobytes(), digest_size=4).hexdigest()
            decides[f"what data.exclude leaves out of {key}"] = f"{len(items)} series ({left_out})"
        decides[f"what lies at {key}.path"] = source.fingerprint
        if len(source.files) <= _MOST_FILES:
            decides |= {f"file {name} of {key}": digest for name, digest in source.files.items()}
    return {name: str(value) for name, value in decides.items()}
