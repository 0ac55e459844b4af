"""Chronos-2 for the rest of foreloom: how one is built, begins, is stored and asked."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from torch import nn

from foreloom.distributed.sharding import Sharding
from foreloom.models.chronos2.architecture import (
    NAIVE_PIPELINE_CLASS,
    PIPELINE_CLASS,
    Architecture,
    Chronos2Config,
    flops_per_row,
)
from foreloom.models.chronos2.batch import batch
from foreloom.models.chronos2.encoder import SCORE_SCALE
from foreloom.models.chronos2.forecast import Chronos2Forecaster
from foreloom.models.chronos2.model import Chronos2Model
from foreloom.models.common.architecture import raised_limit
from foreloom.models.common.count import with_ends
from foreloom.models.common.dropout import set_dropout_rate
from foreloom.models.common.hub_folder import HubFolder, resolve_folder
from foreloom.models.common.lora import LoraHooks
from foreloom.models.common.parametrization import ForwardFactors, ScalingHooks
from foreloom.models.common.t5.shape import drawn, initialize_t5, resized_t5, t5_std
from foreloom.models.family import ModelFamily, WindowLengths


def recognises(config: Mapping[str, Any]) -> bool:
    """Is this config.json one of Chronos-2?"""
    classes = config.get("architectures") or ()
    ours = (PIPELINE_CLASS, NAIVE_PIPELINE_CLASS)
    return config.get("chronos_pipeline_class") in ours or "Chronos2Model" in classes


FOLDER = HubFolder("Chronos-2", recognises, Architecture, Chronos2Model)


def build(config: Chronos2Config, data: WindowLengths) -> Chronos2Model:
    """A new model without values, or a pretrained one whose limits are raised to the data's lengths (in steps)."""
    context_length, prediction_length = data.context_length, data.prediction_length
    if config.pretrained is not None:
        model = FOLDER.load(resolve_folder(config.pretrained))
        adapt(model, config, context_length, prediction_length)
    else:
        patch_size = config.new_values()["input_patch_size"]
        needed = {"context_length": context_length, "max_output_patches": -(-prediction_length // patch_size)}
        model = FOLDER.empty(Architecture(**config.new_values_for(needed)))
    model.reduction = config.reduction
    return model


def adapt(model: Chronos2Model, config: Chronos2Config, context_length: int, prediction_length: int) -> None:
    """Raise a pretrained model's limits, never lower them, and log each change. The time scale stays as it is."""
    arch = model.architecture
    num_patches = arch.num_patches(prediction_length)
    limits = {
        "context_length": raised_limit("context_length", arch.context_length, context_length, config.context_length),
        "max_output_patches": raised_limit(
            "max_output_patches", arch.max_output_patches, num_patches, config.max_output_patches
        ),
    }
    dropout_rate = arch.dropout_rate if config.dropout_rate is None else config.dropout_rate
    lookbacks = config.lookbacks or arch.lookbacks
    model.architecture = arch.replace(**limits, dropout_rate=dropout_rate, lookbacks=lookbacks)
    set_dropout_rate(model, dropout_rate)


def initialize(module: nn.Module, seed: int) -> None:
    """Random values as chronos-forecasting draws them: T5's rules times a small factor, where norms start too.

    A model that begins from naive forecasts begins there: their plain mean, to which its head adds nothing yet.
    """
    arch = Architecture.of(module)
    for name, parameter in module.named_parameters():
        if name.startswith(_nothing_yet(arch)):
            nn.init.zeros_(parameter)
            continue
        initialize_t5(name, parameter, seed, factor=arch.initializer_factor, d_model=arch.d_model, d_kv=arch.d_kv)


def initial_stds(module: nn.Module) -> dict[str, float]:
    """Of what `initialize` draws."""
    arch = Architecture.of(module)
    its = {"factor": arch.initializer_factor, "d_model": arch.d_model, "d_kv": arch.d_kv}
    parameters = {name: p for name, p in module.named_parameters() if not name.startswith(_nothing_yet(arch))}
    return drawn({name: t5_std(name, parameter, **its) for name, parameter in parameters.items()})


def _nothing_yet(arch: Architecture) -> tuple[str, ...]:
    """Beginnings of the names of parameters that begin at 0."""
    if not arch.from_naive:
        return ()
    head = "output_patch_embedding."
    return "naive_mixture.weighing", f"{head}output_layer", f"{head}residual_layer"


def forward_factors(module: nn.Module) -> ForwardFactors:
    """Scores are unscaled, whatever the width of a head."""
    return ForwardFactors(Architecture.of(module).d_kv, attention=SCORE_SCALE)


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """Levels, of which the loss is a sum, what it is averaged over, and whether an arcsinh tames the target."""
    arch = Architecture.of(module)
    return arch.quantiles, module.reduction, arch.use_arcsinh


FAMILY = ModelFamily(
    name="chronos2",
    config=Chronos2Config,
    build=build,
    initialize=initialize,
    batch=lambda module, windows, device: batch(windows, device),
    sharding=Sharding(blocks=("encoder.block.[0-9]", "encoder.block.[0-9][0-9]")),
    recognises=recognises,
    load=FOLDER.load,
    save=FOLDER.save,
    forecaster=Chronos2Forecaster,
    flops_per_row=flops_per_row,
    kinds=with_ends(
        inputs=("input_patch_embedding.hidden_layer", "input_patch_embedding.residual_layer", "naive_mixture.reading"),
        outputs=(
            "output_patch_embedding.output_layer",
            "output_patch_embedding.residual_layer",
            "naive_mixture.weighing",
        ),
    ),
    loss_units=loss_units,
    scaling=ScalingHooks(
        width="d_model",
        depths=("num_layers",),
        resized=functools.partial(resized_t5, even_heads=True),
        forward=forward_factors,
        stds=initial_stds,
        queries=("self_attention.q",),
        branch_ends=("self_attention.o", "mlp.wo"),
    ),
    # The matrices that chronos-forecasting adapts.
    lora=LoraHooks(
        ("self_attention.?", "output_patch_embedding.output_layer"), ("Chronos2Model", "chronos.chronos2.model")
    ),
)
