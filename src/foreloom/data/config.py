"""The `data` and `validation` sections of a recipe: which sources, in which proportion, cut into which windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from foreloom.config.section import section
from foreloom.data.tables.options import TableOptions

Positive = Annotated[int, Field(ge=1)]


@section
class SourceConfig:
    """One data set of the mixture."""

    path: Annotated[str, Field(min_length=1)]
    """Folder or file: save_to_disk, Arrow, Parquet, JSONL, JSON, CSV, .npy, pickle, Time-300B, or a folder of these.
    Relative to the recipe's folder. Or a synthetic process: synth://kernel?length=1024."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Share of the samples drawn from this source, relative to the other weights; the size of the data has no say."""
    holdout: Annotated[int, Field(ge=0)] = 0
    """Last steps of every series that training never sees, so that they can be forecast and scored."""
    max_series: Positive | None = None
    """Use only so many of the usable series, a fixed pseudo-random choice (the same for every seed); unset: all."""
    table: TableOptions | None = Field(default=None, repr=False)  # the opened source's fingerprint knows it
    """Of tables with a row a series and time step: what they do not say themselves (id_column, target, known_ahead,
    freq ...)."""


@section
class GroupConfig:
    """The multivariatizer: univariate series put side by side, so that group attention has something to learn."""

    probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the samples drawn as one univariate series that become a group."""
    min_size: Annotated[int, Field(ge=2)] = 2
    """Fewest series in a group."""
    max_size: Annotated[int, Field(ge=2)] = 8
    """Most series in a group; sizes are uniform between the two, less where the source has not so many."""

    def __post_init__(self) -> None:
        if self.max_size < self.min_size:
            raise ValueError(f"group.max_size {self.max_size} is less than group.min_size {self.min_size}")


@section
class DataConfig:
    """What a run reads and how series become windows."""

    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    """The data sets of the mixture."""
    context_length: Positive
    """Most steps before the cut that a sample holds."""
    prediction_length: Positive
    """Steps after the cut, the horizon to be learned."""
    min_past: Positive | None = None
    """Fewest steps before the cut; unset: prediction_length. Series shorter than both together are left out."""
    series_choice: Literal["uniform", "length"] = "uniform"
    """Within a source: every series equally likely, or every possible cut of every series equally likely."""
    group: GroupConfig = GroupConfig()
    """Put univariate series of one source side by side."""
    stride: Positive | None = None
    """Unset: cuts are drawn at random, without end. A number: the windows of every series lie so many steps apart, from
    its first step on, and a run goes through all windows of all sources once an epoch, each epoch in another order."""
    normalization: Literal["none", "zero", "max"] = "none"
    """What is done to values: nothing; zero mean and unit deviation; divided by the largest magnitude. For families
    that do not scale their input themselves."""
    normalization_scope: Literal["context", "series"] = "context"
    """What the scale is taken from: the steps before the cut, as a forecaster would have them, or the whole series but
    its holdout, which lets every window know its future."""
    allow_missing: bool = True
    """Take windows with missing values; false makes one an error that names the series."""
    drop_values: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Values of targets, before the cut and after it, made missing at random in training: each sample draws a share
    from 0 to this and loses each value with that probability (Chronos-T5: 0.2)."""
    exclude: Annotated[tuple[str, ...], BeforeValidator(lambda one: (one,) if isinstance(one, str) else one)] = ()
    """A file, or several, of JSON lines that name series to leave out; `foreloom data audit --out` and `foreloom data
    replay --exclude` write them."""
    num_prefetch: Annotated[int, Field(ge=0)] = 2
    """Global batches read ahead in the background; 0 reads each when it is asked for."""

    def __post_init__(self) -> None:
        if self.normalization == "none" and self.normalization_scope != "context":
            raise ValueError(
                f"normalization_scope {self.normalization_scope!r} has no effect where normalization is 'none'; "
                "set data.normalization to zero or max, or remove the scope"
            )
        if self.drop_values and not self.allow_missing:
            raise ValueError(
                "drop_values makes values missing, which allow_missing: false refuses; remove one or the other"
            )
        if self.stride is None:
            return
        idle = {
            "series_choice": self.series_choice != "uniform",
            "group": self.group != GroupConfig(),
            "a source's weight": any(source.weight != 1 for source in self.sources),
        }
        given = [name for name, is_given in idle.items() if is_given]
        if given:
            raise ValueError(
                f"{' and '.join(given)} {'has' if len(given) == 1 else 'have'} no effect with data.stride, which goes "
                "through every window of every series once an epoch; remove one or the other"
            )

    @property
    def min_length(self) -> int:
        """Fewest steps of a usable series."""
        return self.least_past + self.prediction_length

    @property
    def least_past(self) -> int:
        """`min_past` with its default filled in."""
        return self.prediction_length if self.min_past is None else self.min_past


@section
class ValidationConfig:
    """How often the loss is measured on data kept out of training, and when that ends the run.

    A kind of data adds what is held out.
    """

    steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps between validations; one before the first step and one after the last come besides. 0: never."""
    max_windows: Positive = 2048
    """Most windows of one validation; where there are more, so many evenly spread ones, always the same."""
    patience: Annotated[int, Field(ge=0)] = 0
    """The run ends after so many validations without an improvement; 0: it never ends early."""
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How far the loss must fall to count as an improvement."""
    restore_best: bool | None = None
    """The final hf/ holds the weights of the lowest validation loss, not those of the last step; each best model so far
    is saved for that. Unset: where patience is given."""

    ABSENT: ClassVar[Mapping[str, str]] = {"patience": "0", "min_delta": "0", "restore_best": "null"}
    """How to write that a setting is not given, of those that mean nothing without `steps`."""

    def __post_init__(self) -> None:
        idle = [name for name in self.ABSENT if getattr(self, name)]
        if not self.steps and idle:
            have = "has" if len(idle) == 1 else "have"
            without = " ".join(f"validation.{name}={self.ABSENT[name]}" for name in idle)
            raise ValueError(
                f"{' and '.join(idle)} {have} no effect while validation.steps is 0; set it, or go without: {without}"
            )
        if self.min_delta and not self.patience:
            raise ValueError("min_delta has no effect without patience; set it or remove min_delta")

    @property
    def restores(self) -> bool:
        """`restore_best` with its default filled in."""
        return self.patience > 0 if self.restore_best is None else self.restore_best

    def implied(self) -> dict[str, Any]:
        return {"restore_best": self.restores}


@section
class SeriesValidation(ValidationConfig):
    """How often the loss is measured on windows kept out of training, on which, and when that ends the run."""

    sources: tuple[SourceConfig, ...] = ()
    """Data sets of their own to validate on; empty: the holdout of data.sources."""
    stride: Positive | None = None
    """Steps between two windows of a series; unset: data.prediction_length."""

    ABSENT: ClassVar[Mapping[str, str]] = {**ValidationConfig.ABSENT, "sources": "[]", "stride": "null"}
