"""Validation windows: a finite set whose horizons lie in what training never sees, the same on every world size.

Axes: N windows, M series (of all sources).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from foreloom.data.config import DataConfig, SourceConfig
from foreloom.data.formats.reader import open_source
from foreloom.data.loader import plan_micro_batches
from foreloom.data.source import Source
from foreloom.data.stream.draw import Samples
from foreloom.data.stream.normalization import SeriesScales, center_and_scale
from foreloom.data.stream.selection import fixed_choice, read_excluded
from foreloom.data.stream.windows import Role, Windows, gather
from foreloom.data.synthetic.address import short_name
from foreloom.data.tables.options import TableOptions

_FAR = 1e6
"""Times a past's deviation and mean."""


def validation_samples(
    sources: Sequence[Source],
    described: Sequence[SourceConfig],
    *,
    context_length: int,
    prediction_length: int,
    least_past: int,
    stride: int,
    max_windows: int,
    excluded: Sequence[np.ndarray],
) -> Samples:
    """The windows whose horizon lies in the last `holdout` steps of its series; a holdout of 0 stands for all steps.

    Cuts begin where the holdout does, or after `least_past` steps, and lie `stride` apart, as far as the whole horizon
    fits. Contexts may reach before the holdout. Series in `excluded` (rows, a source each) have none. Of more than
    `max_windows`, so many evenly spread ones are taken.
    """
    first_cuts, counts = [], []
    for source, its, left_out in zip(sources, described, excluded, strict=True):
        first_cut = np.maximum(source.lengths - its.holdout if its.holdout else 0, least_past)
        count = np.maximum((source.lengths - prediction_length - first_cut) // stride + 1, 0)
        count[left_out] = 0
        taken = np.zeros_like(count)
        chosen = fixed_choice(np.flatnonzero(count), its.max_series)
        taken[chosen] = count[chosen]
        first_cuts.append(np.broadcast_to(first_cut, count.shape))
        counts.append(taken)
    first_cut_M, count_M = np.concatenate(first_cuts), np.concatenate(counts)
    source_M = np.repeat(np.arange(len(sources), dtype=np.int32), [len(source) for source in sources])
    item_M = np.concatenate([np.arange(len(source)) for source in sources])
    rows_M = np.concatenate([source.num_rows for source in sources]).astype(np.int64)

    windows_up_to_M = np.cumsum(count_M)
    num_windows = int(windows_up_to_M[-1])
    num_taken = min(num_windows, max_windows)
    window_N = np.arange(num_taken) * num_windows // max(num_taken, 1)
    series_N = np.searchsorted(windows_up_to_M, window_N, side="right")
    number_N = window_N - (windows_up_to_M[series_N] - count_M[series_N])
    cut_N = first_cut_M[series_N] + number_N * stride
    return Samples(
        first=0,
        source_N=source_M[series_N],
        num_rows_N=rows_M[series_N],
        length_N=np.minimum(cut_N, context_length),
        offsets_N=np.arange(num_taken + 1),
        item_M=item_M[series_N],
        cut_M=cut_N,
    )


class ValidationWindows:
    """Iterates over this rank's micro-batches of the validation windows, as many on every rank; again and again.

    Without `sources`, the windows are those of the holdouts of `config.sources`. With `sources`, a validation set of
    its own, they are those of its holdouts too, or of whole series where a source has none. `stride` is
    `prediction_length` where not given. `max_windows` bounds their number, `micro_batch_rows` (0: no bound) the rows
    of a micro-batch. `opened` replaces the opened sources, in the same order. Only horizons count in the loss, and of
    those none that holds a value a million times farther away than its past reaches: one such value would be all there
    is to the mean. Raises ValueError where there is no window.
    """

    def __init__(
        self,
        config: DataConfig,
        sources: Sequence[SourceConfig] | None = None,
        *,
        max_windows: int,
        stride: int | None = None,
        micro_batch_rows: int = 0,
        rank: int = 0,
        world_size: int = 1,
        opened: Sequence[Source] | None = None,
    ):
        assert 0 <= rank < world_size and max_windows > 0
        candidates = list(sources or config.sources)
        taken = [number for number, one in enumerate(candidates) if sources or one.holdout]
        if not taken:
            raise ValueError(
                "There is nothing to validate on: set data.sources.N.holdout, so that training leaves the last steps "
                "of every series alone, or name other data sets in validation.sources."
            )
        described = [candidates[number] for number in taken]
        fresh = (open_source(one.path, table=one.table or TableOptions()) for one in candidates)
        every = list(fresh if opened is None else opened)
        self._sources = [every[number] for number in taken]
        # What is excluded is of data.sources; a validation set of its own is scored as it is.
        left_out = read_excluded(() if sources else config.exclude, every)
        self._config = config
        self._samples = validation_samples(
            self._sources,
            described,
            context_length=config.context_length,
            prediction_length=config.prediction_length,
            least_past=config.least_past,
            stride=stride or config.prediction_length,
            max_windows=max_windows,
            excluded=[left_out[number] for number in taken],
        )
        if not len(self._samples):
            raise ValueError(
                f"{', '.join(one.name for one in self._sources)}: no horizon of {config.prediction_length} steps fits "
                f"into what is held out ({', '.join(str(one.holdout) for one in described)} steps; series of up to "
                f"{max(int(one.lengths.max()) for one in self._sources)}, after {config.least_past} steps of past). "
                "Raise the holdout to data.prediction_length at least."
            )
        seen = np.zeros(len(self._sources), bool)
        seen[self._samples.source_N] = True
        self._without = [
            f"{short_name(source.name)} (holdout {one.holdout:,})"
            for source, one, is_seen in zip(self._sources, described, seen, strict=True)
            if not is_seen
        ]
        self._series_scales = None
        if config.normalization_scope == "series":
            lengths = [
                np.maximum(source.lengths - one.holdout, 0)
                for source, one in zip(self._sources, described, strict=True)
            ]
            self._series_scales = SeriesScales(self._sources, lengths, config.normalization)
        self._left_out: dict[int, float] = {}
        self._plan = plan_micro_batches(
            self._samples.num_rows_N,
            self._samples.length_N,
            world_size=world_size,
            micro_batch_size=micro_batch_rows,
        )[rank]

    @property
    def num_windows(self) -> int:
        """Of all ranks together."""
        return len(self._samples)

    def __len__(self) -> int:
        """Micro-batches of this rank, and of every other."""
        return len(self._plan)

    def __iter__(self) -> Iterator[Windows]:
        for positions in self._plan:
            if len(positions):
                yield self._without_far_horizons(replace(self._gather(positions), horizon_only=True))
            else:
                yield self._gather(np.array([int(np.argmin(self._samples.length_N))])).masked()

    def _gather(self, positions: np.ndarray) -> Windows:
        return gather(
            self._sources,
            self._samples,
            positions,
            context_length=self._config.context_length,
            prediction_length=self._config.prediction_length,
            allow_missing=self._config.allow_missing,
            normalization=self._config.normalization,
            series_scales=self._series_scales,
        )

    def left_out(self) -> list[str]:
        """See `ExplainsItself`: windows with a value too far from their past."""
        return [f"{self._name(sample)} ({value:.4g})" for sample, value in sorted(self._left_out.items())]

    def without_windows(self) -> list[str]:
        """See `ExplainsItself`."""
        return self._without

    def largest_value(self, micro_batch: Windows) -> str:
        """See `ExplainsItself`."""
        values_RT = np.abs(np.concatenate([micro_batch.context_RC, micro_batch.future_RH], axis=1))
        row = int(np.argmax(np.fmax.reduce(values_RT, axis=1, initial=0.0)))
        return f"{self._name(int(micro_batch.sample_R[row]))} ({np.nanmax(values_RT[row], initial=0.0):.4g})"

    def why_nothing_counts(self) -> str:
        """See `ExplainsItself`. Told by the values as they lie in the data, in float64."""
        reasons: Counter[str] = Counter()
        examples: dict[str, str] = {}
        for sample in np.concatenate(self._plan).tolist():
            reason = self._why_not(sample)
            reasons[reason] += 1
            examples.setdefault(reason, self._name(sample))
        listed = "; ".join(f"{num:,} {reason} (the first: {examples[reason]})" for reason, num in reasons.most_common())
        return f"of {reasons.total():,} windows, {listed}" if reasons else "this rank has no window of its own"

    def _without_far_horizons(self, windows: Windows) -> Windows:
        center_R, scale_R = center_and_scale(windows.context_RC, "zero")
        distance_RH = np.abs(windows.future_RH - center_R[:, None])
        far_R = np.fmax.reduce(distance_RH, axis=1) > _FAR * np.maximum(scale_R, np.abs(center_R))
        far_R &= windows.role_R == Role.TARGET
        if not far_R.any():
            return windows
        for row in np.flatnonzero(far_R):
            self._left_out[int(windows.sample_R[row])] = float(windows.future_RH[row, np.nanargmax(distance_RH[row])])
        return replace(windows, future_RH=np.where(far_R[:, None], np.float32("nan"), windows.future_RH))

    def _why_not(self, sample: int) -> str:
        source, item, cut = self._place(sample)
        num_steps = int(self._samples.length_N[sample])
        num_rows = int(source.num_rows[item])
        context_RC = np.full((num_rows, num_steps), np.nan)
        future_RH = np.full((num_rows, self._config.prediction_length), np.nan)
        counts = source.fill_window(item, cut, context_RC, future_RH)
        context_VC, future_VH = context_RC[: counts.num_targets], future_RH[: counts.num_targets]
        largest = float(np.finfo(np.float32).max)
        for values, what in ((future_VH, "to forecast"), (context_VC, "in their past")):
            if not np.isfinite(values).any():
                return f"have no value {what}"
            if not (np.abs(values) <= largest).any():
                return f"hold values beyond float32 (3.4e38) {what}"
        if sample in self._left_out:
            return "hold a value a million times farther away than their past reaches"
        if (np.fmax.reduce(context_VC, axis=1) == np.fmin.reduce(context_VC, axis=1)).all():
            return "have a flat past, which gives the model no scale"
        return "have values, and none that the model counts"

    def _place(self, sample: int) -> tuple[Source, int, int]:
        """Source, item and cut of a window."""
        member = int(self._samples.offsets_N[sample])
        source = self._sources[int(self._samples.source_N[sample])]
        return source, int(self._samples.item_M[member]), int(self._samples.cut_M[member])

    def _name(self, sample: int) -> str:
        source, item, cut = self._place(sample)
        last = cut + self._config.prediction_length
        return f"series {source.read(item).item_id!r} of {source.name}, steps {cut + 1:,} to {last:,}"
