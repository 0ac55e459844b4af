"""The contract of a model family: one record that says how to build, feed, shard, store and ask a model.

Axes: R target rows, L layers with experts, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.data.batch import DataSection
from foreloom.data.forecast_input import ForecastInput
from foreloom.distributed.sharding import Sharding
from foreloom.models.common.count import ParameterGroup, ParameterKind, by_child, by_shape
from foreloom.models.common.hub_folder import HubFolder
from foreloom.models.common.lora import LoraHooks
from foreloom.models.common.parametrization import ScalingHooks
from foreloom.models.common.text import (
    StepwiseGenerator,
    continuations,
    figures,
    load_with_tokenizer,
    loss_units,
    save_with_tokenizer,
    text_data,
    text_for_attention,
)


class Forecaster(Protocol):
    """Answers forecasts in the data's own units. Built from a module, so it serves the benchmark in training too."""

    quantile_levels: tuple[float, ...]
    """The levels the model was trained for; (0.5,) for one that forecasts a single value a step."""
    context_length: int
    """The most context steps the model uses."""
    prediction_length: int
    """The longest horizon of one forward; longer ones are unrolled."""
    is_autoregressive: bool
    """Was the model made to forecast longer horizons part by part, each from the one before? Then they need no
    warning."""
    is_univariate: bool
    """Does it see one series at a time, and pass covariates over?"""

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
        """One array (num_targets, prediction_length, len(quantile_levels)) an input, in the order given: float32, or
        float64 where float32 would lose its moves in their level (see `models.common.forecasting.in_float32`).

        A model of single values gives its value at every level asked for: a distribution of one point.
        `batch_size` counts rows. `context_length` keeps the newest steps only; more than the model's own is an error.
        """
        ...

    def embed(self, inputs: Sequence[ForecastInput], *, batch_size: int = 256) -> list[np.ndarray]:
        """Hidden states (rows, tokens, d_model) an input."""
        ...

    def on_scaled_data(self) -> Forecaster:
        """The same forecaster for values that were already brought to unit scale, as the LTSF protocol does.

        A family whose model standardises its input itself returns itself; one that leaves that to the caller stops
        normalising each context.
        """
        ...


class Generator(Protocol):
    """Goes on with texts. Built from a module, so it serves a look at the model in training too."""

    def generate(
        self,
        prompts: Sequence[str | Sequence[Mapping[str, str]]],
        *,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        chat: bool = False,
        batch_size: int = 16,
    ) -> list[str]:
        """The continuation of each prompt, without the prompt, in the order given.

        `temperature` 0 takes the likeliest token each time; else one is drawn, of the `top_k` likeliest (0: of all) and
        of the fewest whose probabilities reach `top_p`. What is drawn depends on prompt and `seed`, not on the other
        prompts. `chat`: a prompt is what the user says, or a list of {role, content}, in the model's own template.
        `batch_size` prompts, of whatever lengths, are gone on with at once: a matter of speed and memory alone.
        ValueError where a prompt is empty or too long, and where there is no template.
        """
        ...


class ExpertChoices(NamedTuple):
    """Which experts the target rows of a call were sent to."""

    chosen_RLE: np.ndarray
    """int64: how often a row was sent to an expert. A row that goes to its experts as a whole has 1 for each of them,
    one whose steps go their own ways the number of steps."""
    probability_RLE: np.ndarray
    """float32: the router's probabilities before the choice, the mean over what was routed."""
    top_k: int
    """Experts of each choice."""


@runtime_checkable
class RoutedForecaster(Protocol):
    """A forecaster whose family may have experts, and that tells where it sends what."""

    context_length: int

    def route(
        self, inputs: Sequence[ForecastInput], *, batch_size: int = 256, context_length: int | None = None
    ) -> ExpertChoices:
        """Where the contexts are sent, without forecasting: the rows of all inputs one after another, targets only.

        ValueError for a model without experts, and for a `context_length` above the model's own.
        """
        ...


Tally = Mapping[str, Tensor]
"""Additive figures of a micro-batch by name, detached, on the device: the trainer sums them over micro-batches, ranks
and the steps between two log lines (`forecast_loss`: (sum, count); `expert_load`: (layers, experts) tokens)."""


def _nothing_after_update(module: nn.Module, tally: Tally, applied: Tensor) -> None:
    """Nothing but the optimizer changes the module."""


def _no_figures(module: nn.Module, tally: Mapping[str, np.ndarray]) -> Mapping[str, float]:
    """There is nothing to add to the log."""
    return {}


def _is_a_sum_over_rows(module: nn.Module) -> bool:
    """The objective of a micro-batch does not depend on the rest of the global batch."""
    return False


def _one_unit(module: nn.Module) -> tuple[Any, ...]:
    """All modules have the same loss."""
    return ()


def _known_already() -> None:
    """Another library loads the folders, or transformers knows them."""


def _nothing_to_show(module: nn.Module, validation: Any) -> Sequence[tuple[str, str]]:
    """The family writes no text."""
    return ()


def _as_it_is(model: Any, data: Any) -> Any:
    """The data section takes nothing from the model's."""
    return data


def series() -> type[DataSection]:
    """Windows of series. Imported when it is asked for: whoever loads a model to forecast needs none of it."""
    from foreloom.data.stream.series import SeriesData

    return SeriesData


@dataclass(frozen=True)
class ExpertHooks:
    """What a family with experts, or with anything else that is ruled by the whole global batch, does besides."""

    after_update: Callable[[nn.Module, Tally, Tensor], None] = _nothing_after_update
    """after_update(module, tally of the global batch, applied): called on every rank after each optimizer step, without
    waiting for the device; `applied` is 1, or 0 where the step was skipped. Balances routers without a loss."""
    figures: Callable[[nn.Module, Mapping[str, np.ndarray]], Mapping[str, float]] = _no_figures
    """figures(module, tally since the last log line) -> named numbers for the log (forecast_loss, expert_entropy)."""
    loads: tuple[str, ...] = ()
    """Entries of the tally that count tokens, (layers, experts): logged as they are."""
    needs_survey: Callable[[nn.Module], bool] = _is_a_sum_over_rows
    """Does the objective of a micro-batch depend on the whole global batch? Then, where that has several parts, each is
    run beforehand without a gradient as forward(..., survey_only=True), and forward gets the sum of the tallies over
    all of them as `global_tally`; dropout is drawn alike both times. Asked once."""


class WindowLengths(NamedTuple):
    """What a family reads of a `data` section of series to build a module and to count its FLOPs, where there is no
    recipe."""

    context_length: int
    prediction_length: int


Carry = Mapping[str, Tensor]
"""Recurrent state by name, (lanes, ...) each: what a stream has left behind in a module."""


@dataclass(frozen=True)
class ModelFamily:
    """All the rest of foreloom knows of a family. Nothing outside `models/` names one."""

    name: str
    """As in `model.family`."""
    config: type
    """The recipe's `model` section (see `config.section`): `family`, `size`, `pretrained`, and the architecture."""
    build: Callable[[Any, Any], nn.Module]
    """build(model section, data section) -> module on CPU with no values set beyond shapes (`initialize` sets them);
    for a `pretrained` one, the loaded module with its limits raised to the lengths of the data, each change logged as
    `context_length: 2048 -> 8192`."""
    initialize: Callable[[nn.Module, int], None]
    """initialize(module, seed): random values, seeded by parameter name, equal on every world size."""
    batch: Callable[[nn.Module, Any, torch.device], Mapping[str, Any]]
    """batch(module, micro-batch, device) -> keyword arguments of the module's forward, on the device (pinned,
    non-blocking copies on CUDA). Of the module only its settings are read, a tokenizer's for instance."""
    sharding: Sharding
    recognises: Callable[[Mapping[str, Any]], bool]
    """Does this config.json (Hugging Face folder) belong to the family?"""
    load: Callable[..., nn.Module]
    """load(folder) -> module with the published weights; ValueError names what does not fit."""
    save: Callable[[nn.Module, Mapping[str, Tensor], Path], None]
    """save(module, state_dict, folder): config.json + model.safetensors that the reference library loads. The state
    dict is handed in because a sharded module's own is not whole."""
    flops_per_row: Callable[[nn.Module, Any], float]
    """flops_per_row(module, data section): forward + backward FLOPs of one row, for MFU and the ladder."""
    data: Callable[[], type[DataSection]] = series
    """data() -> the class of the recipe's `data` section: what kind of data the family learns from."""
    data_for: Callable[[Any, Any], Any] = _as_it_is
    """data_for(model section, data section) -> the data section with what the model decides of it (a tokenizer);
    ValueError where the two do not fit. `model.pretrained` is a folder, or not looked for yet."""
    forecaster: Callable[[nn.Module], Forecaster] | None = None
    """None for a family that does not forecast."""
    generator: Callable[[nn.Module], Generator] | None = None
    """None for a family that does not write text."""
    continuations: Callable[[nn.Module, Any], Sequence[tuple[str, str]]] = _nothing_to_show
    """continuations(module, validation section) -> prompts and how the module, in eval mode, goes on with them: for
    people to read as it trains."""
    parts: Callable[[nn.Module], Sequence[ParameterGroup]] = by_child
    """parts(module): its parameters by what they are for, on any device, the meta device too."""
    kinds: Callable[[nn.Module], Mapping[str, ParameterKind]] = by_shape
    """kinds(module): what each parameter is in its network, by name: decides which update it gets."""
    loss_units: Callable[[nn.Module], tuple[Any, ...]] = _one_unit
    """loss_units(module): what its loss is counted in (the tokens of a tokenizer, quantile levels), as plain values.
    Losses of two modules with other units are different quantities."""
    experts: ExpertHooks = ExpertHooks()
    """What it does besides with experts."""
    lora: LoraHooks = field(default_factory=LoraHooks)
    """Which of its matrices are adapted, and how PEFT knows them."""
    scaling: ScalingHooks | None = None
    """Its models of other widths and depths, for muP; None where `standard` is all there is."""
    carry: Callable[[nn.Module, int, torch.device], Carry] | None = None
    """carry(module, lanes, device): the state that `lanes` streams begin with, for recurrent modules. Sample i of the
    stream then goes on where the sample one global batch earlier in its lane ended: forward takes the rows' `carry` and
    gives back theirs in its output. Held-out micro-batches that have `resets_R` go on likewise, one from the other."""
    teach_transformers: Callable[[], None] = _known_already
    """teach_transformers(): register the family with transformers' Auto classes; see `foreloom.hub`."""


def text_family(folder: HubFolder[Any], **record: Any) -> ModelFamily:
    """A family of stepwise models of text (`common.text`) whose `folder` is foreloom's own: what all such have, and
    what `record` says."""
    shared: dict[str, Any] = {
        "data": text_data,
        "data_for": text_for_attention,
        "recognises": folder.recognises,
        "load": lambda path: load_with_tokenizer(folder, path),
        "save": save_with_tokenizer(folder),
        "generator": StepwiseGenerator,
        "continuations": continuations(StepwiseGenerator),
        "loss_units": loss_units,
        "experts": ExpertHooks(figures=figures),
    }
    return ModelFamily(**(shared | record))


def generator_of(family: ModelFamily, module: nn.Module) -> Generator:
    """A generator around a module; ValueError for a family that does not write text."""
    if family.generator is None:
        raise ValueError(f"a model of the family {family.name} does not write text.")
    return family.generator(module)


class ModelOutput(Protocol):
    """What a module's forward returns when targets are given."""

    loss: Tensor | None
    """Scalar, as the reference implementation reports it."""
    objective: Any
    """`objectives.loss.Loss`: what the trainer sums over micro-batches and ranks."""
    tally: Tally
    """Empty for a family that has nothing to add to the log."""
    # A recurrent module's output has `carry: Carry` too.
