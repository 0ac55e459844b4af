"""How a model is asked for forecasts: while it may be in training, of contexts of any length, at any quantile level.

Axes: B rows of a batch, V targets of an input, R its rows, C and L context steps, T tokens, D model width.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from foreloom import subnormals
from foreloom.data.forecast_input import ForecastInput
from foreloom.data.stream.normalization import drowning_levels
from foreloom.models.common.rows import batches_by_length, left_padded


@contextmanager
def inference(module: nn.Module) -> Generator[None]:
    """No dropout, no graph, no subnormal floats.

    Not torch.inference_mode: a sharded module caches tensors that training uses again.
    """
    _keep_freed_memory()
    was_training = module.training
    module.eval()
    try:
        with subnormals.flushed(), torch.no_grad():
            yield
    finally:
        module.train(was_training)


@functools.cache
def _keep_freed_memory() -> None:
    """Have glibc keep what one layer frees (up to 64 MB) for the next, in place of getting fresh pages from the system
    for every large tensor: an eighth of a forecast on a CPU.

    It does so for blocks of up to the size of the largest that it has seen freed, and never of more than 32 MiB.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


Batch = TypeVar("Batch", bound=Sized)
_tell: ContextVar[Callable[[int, int], object]] = ContextVar("tell", default=lambda done, total: None)


@contextmanager
def telling(tell: Callable[[int, int], object]) -> Generator[None]:
    """While entered, who forecasts in this thread says before each batch `tell(forecasts made, in all)`."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def told(batches: Iterable[Batch], total: int) -> Iterator[Batch]:
    """The batches one by one, of `total` forecasts, see `telling`."""
    tell, done = _tell.get(), 0
    for batch in batches:
        tell(done, total)
        yield batch
        done += len(batch)


def usable_steps(inputs: Sequence[ForecastInput], asked: int | None, limit: int) -> int:
    """How many of the newest steps are used: those asked for, or as many as the model looks at (`limit`).

    ValueError for more than the limit, be it asked for, or there without a word of how much to use.
    """
    if asked is None:
        longest = max((x.context_RC.shape[1] for x in inputs), default=0)
        if longest > limit:
            raise ValueError(
                f"a context has {longest} steps and the model looks at {limit} at most; pass context_length={limit} "
                "to use the newest ones only."
            )
        return limit
    if not 1 <= asked <= limit:
        raise ValueError(f"context_length is {asked}; this model takes 1 to {limit}.")
    return asked


def in_float32(one: ForecastInput, num_steps: int) -> tuple[ForecastInput, np.ndarray | None]:
    """The newest steps of an input as models read them, and the level of each target that its answer lacks (V,).

    Rows whose moves float32 would lose in their level are seen without it (see `drowning_levels`), and that is the one
    place where it is taken off; None where no target's is. What float32 cannot hold counts as missing.
    """
    context_RC, future_RH = one.context_RC[:, -num_steps:], one.future_RH
    if context_RC.dtype == future_RH.dtype == np.float32:
        return (one if context_RC.shape == one.context_RC.shape else replace(one, context_RC=context_RC)), None
    level_R = drowning_levels(context_RC)
    with np.errstate(over="ignore"):
        narrow = [(values_RT - level_R[:, None]).astype(np.float32) for values_RT in (context_RC, future_RH)]
    for values_RT in narrow:
        values_RT[np.isinf(values_RT)] = np.nan
    level_V = level_R[: one.num_targets]
    return replace(one, context_RC=narrow[0], future_RH=narrow[1]), level_V if level_V.any() else None


def on_level(answer: np.ndarray, level_V: np.ndarray | None) -> np.ndarray:
    """An answer (V, ...) in the units of the data: float64 where a level had been taken off."""
    return answer if level_V is None else answer + level_V.reshape(-1, *[1] * (answer.ndim - 1))


class TargetRows(NamedTuple):
    """The targets of several inputs as rows, one after another."""

    contexts: list[np.ndarray]
    """float32, each from its first observed step on."""
    of_input: list[slice]
    level_of_input: list[np.ndarray | None]
    """See `in_float32`."""

    def answers(self, of_row: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What was answered row by row as one array an input, in the units of the data."""
        pairs = zip(self.of_input, self.level_of_input, strict=True)
        return [on_level(np.stack(of_row[rows]), level_V) for rows, level_V in pairs]


def target_rows(inputs: Sequence[ForecastInput], num_steps: int) -> TargetRows:
    """The newest steps of every target."""
    narrow = [in_float32(x, num_steps) for x in inputs]
    ends = accumulate(x.num_targets for x in inputs)
    return TargetRows(
        [_observed(x_L) for x, _ in narrow for x_L in x.context_RC[: x.num_targets]],
        [slice(end - x.num_targets, end) for end, x in zip(ends, inputs, strict=True)],
        [level_V for _, level_V in narrow],
    )


def _observed(x_L: np.ndarray) -> np.ndarray:
    """From the first observed step on; a single missing one where nothing is observed. Infinite values are missing."""
    x_L = np.where(np.isfinite(x_L), x_L, np.float32("nan")).astype(np.float32)
    observed_L = ~np.isnan(x_L)
    return x_L[observed_L.argmax() :] if observed_L.any() else x_L[-1:]


def interpolate_levels(values: Tensor, levels: Sequence[float], wanted: Sequence[float]) -> Tensor:
    """(..., levels) -> (..., wanted), linear between trained levels and flat beyond them; trained ones are exact."""
    if tuple(levels) == tuple(wanted):
        return values
    if set(wanted) <= set(levels):
        return values[..., [tuple(levels).index(level) for level in wanted]]
    shape = values.shape[:-1]
    expand = lambda level: values.new_tensor(level).expand(*shape, -1)
    return interpolate(values, expand(levels), expand(wanted))


def interpolate(value: Tensor, at: Tensor, query: Tensor) -> Tensor:
    """Piecewise linear through the points (at, value), ascending along the last axis, constant beyond the ends."""
    upper = torch.searchsorted(at.contiguous(), query.contiguous(), right=True)
    lower = (upper - 1).clamp(min=0)
    upper = upper.clamp(max=value.shape[-1] - 1)
    at_lower, at_upper = at.gather(-1, lower), at.gather(-1, upper)
    width = at_upper - at_lower
    share = torch.where(width > 0, (query - at_lower) / width, 0.0)
    return torch.lerp(value.gather(-1, lower), value.gather(-1, upper), share)


def quantiles_of(samples: Tensor, levels: Sequence[float]) -> Tensor:
    """(..., X) samples, equally likely -> (..., levels), linear between them: torch.quantile, but of any size."""
    samples = samples.sort(dim=-1).values
    rank = samples.new_tensor(levels) * (samples.shape[-1] - 1)
    lower = rank.floor().long()
    upper = rank.ceil().long()
    return torch.lerp(samples[..., lower], samples[..., upper], rank - lower)


def refuse_cross_learning(model_name: str, cross_learning: bool) -> None:
    """ValueError where it is asked of a model that sees one series at a time."""
    if cross_learning:
        raise ValueError(f"cross_learning: {model_name} forecasts each series on its own; leave it out.")


class UnivariateForecaster(ABC):
    """What forecasters share whose model sees one series at a time: each target row is forecast on its own.

    Covariates are passed over. The module keeps its device and, outside the calls, its training mode, and may be
    sharded. See `models.family.Forecaster`.
    """

    model_name: ClassVar[str]
    """For messages."""
    max_steps: ClassVar[int]
    """Most rows of one forward times the longest of their contexts, which bounds its memory; a call that holds more is
    cut up."""
    is_autoregressive = False
    is_univariate = True
    quantile_levels: tuple[float, ...]
    context_length: int
    prediction_length: int

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @abstractmethod
    def forecast(
        self, contexts: list[np.ndarray], prediction_length: int, quantile_levels: Sequence[float]
    ) -> np.ndarray:
        """float32 (B, prediction_length, levels) of a batch of rows, made while nothing is learned."""

    @abstractmethod
    def hidden_states(self, contexts: list[np.ndarray]) -> Tensor:
        """(B, T, D) of a batch of rows, each in the last of the T tokens."""

    @abstractmethod
    def num_tokens(self, num_steps: int) -> int:
        """Tokens that the model makes of a row of so many steps."""

    def predict_quantiles(
        self,
        inputs: Sequence[ForecastInput],
        prediction_length: int,
        quantile_levels: Sequence[float],
        *,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
    ) -> list[np.ndarray]:
        """See `models.family.Forecaster`. ValueError for a context beyond the limit where `context_length` does not say
        how much of it to use, and for cross_learning."""
        refuse_cross_learning(self.model_name, cross_learning)
        rows = self.rows(inputs, self.num_context_steps(inputs, context_length, prediction_length))
        run = lambda contexts: self.forecast(contexts, prediction_length, quantile_levels)
        return rows.answers(self.by_batches(rows.contexts, batch_size, run))

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        """Hidden states (targets, tokens, D) an input, see `hidden_states`: of the steps from the first one on that any
        of its targets observes. Tokens before a target's own first observed step are 0."""
        rows = self.rows(inputs, self.embedded_steps(inputs))

        def run(contexts: list[np.ndarray]) -> list[np.ndarray]:
            hidden_BTD = self.hidden_states(contexts).float().cpu().numpy()
            return [
                hidden_TD[-self.num_tokens(len(x_L)) :] for hidden_TD, x_L in zip(hidden_BTD, contexts, strict=True)
            ]

        hidden = self.by_batches(rows.contexts, batch_size, run)
        return [left_padded(hidden[rows_of], 0.0) for rows_of in rows.of_input]

    def on_scaled_data(self) -> Self:
        """Itself: the model scales every context anyway."""
        return self

    def by_batches(
        self, rows: Sequence[np.ndarray], batch_size: int, run: Callable[[list[np.ndarray]], Iterable[Any]]
    ) -> list[Any]:
        """What `run` makes of each row, given batches of rows of like length."""
        results: list[Any] = [None] * len(rows)
        with inference(self.module):
            for chosen in told(batches_by_length([len(row) for row in rows], batch_size, self.max_steps), len(rows)):
                for i, result in zip(chosen, run([rows[i] for i in chosen]), strict=True):
                    results[i] = result
        return results

    def rows(self, inputs: Sequence[ForecastInput], num_steps: int) -> TargetRows:
        """See `target_rows`."""
        return target_rows(inputs, num_steps)

    def num_context_steps(
        self, inputs: Sequence[ForecastInput], context_length: int | None, prediction_length: int | None = None
    ) -> int:
        """How many of the newest steps are used for a forecast of that length, or without one; see `usable_steps`."""
        return usable_steps(inputs, context_length, self.context_length)

    def embedded_steps(self, inputs: Sequence[ForecastInput]) -> int:
        """How many of the newest steps are embedded."""
        return self.num_context_steps(inputs, None)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device
