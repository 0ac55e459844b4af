"""Chronos-Bolt for the rest of foreloom: how one is built, begins, is stored and asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from foreloom.distributed.sharding import Sharding
from foreloom.models.chronos_bolt.architecture import (
    MODEL_CLASS,
    PIPELINE_CLASS,
    Architecture,
    ChronosBoltConfig,
    flops_per_row,
)
from foreloom.models.chronos_bolt.batch import batch
from foreloom.models.chronos_bolt.forecast import ChronosBoltForecaster
from foreloom.models.chronos_bolt.model import ChronosBoltModel
from foreloom.models.common.architecture import raised_limit
from foreloom.models.common.count import with_ends
from foreloom.models.common.dropout import set_dropout_rate
from foreloom.models.common.hub_folder import HubFolder, resolve_folder
from foreloom.models.common.initialize import normal_by_name
from foreloom.models.common.lora import LoraHooks
from foreloom.models.common.parametrization import ForwardFactors, ScalingHooks
from foreloom.models.common.t5.attention import SCORE_SCALE
from foreloom.models.common.t5.shape import drawn, initialize_t5, resized_t5, t5_std, without_tied_copies
from foreloom.models.common.t5.stack import BLOCKS
from foreloom.models.family import ModelFamily, WindowLengths


def recognises(config: Mapping[str, Any]) -> bool:
    """Is this config.json one of Chronos-Bolt?"""
    return config.get("chronos_pipeline_class") == PIPELINE_CLASS or MODEL_CLASS in (config.get("architectures") or ())


def own_tensors(tensors: Mapping[str, Tensor], file: Path, arch: Architecture) -> dict[str, Tensor]:
    """Without the head that a file may have kept of the T5 it began as, which the reference passes over too."""
    return without_tied_copies({name: x for name, x in tensors.items() if name != "lm_head.weight"}, file)


FOLDER = HubFolder("Chronos-Bolt", recognises, Architecture, ChronosBoltModel, own_tensors)


def build(config: ChronosBoltConfig, data: WindowLengths) -> ChronosBoltModel:
    """A new model without values, or a pretrained one whose context is raised to that of the data (in steps).

    ValueError for data with a horizon beyond the head; a shorter one trains the head's first steps only.
    """
    context_length, prediction_length = data.context_length, data.prediction_length
    if config.pretrained is None:
        needed = {"context_length": context_length, "prediction_length": prediction_length}
        model = FOLDER.empty(Architecture(**config.new_values_for(needed)))
    else:
        model = FOLDER.load(resolve_folder(config.pretrained))
        _adapt(model, config, context_length, prediction_length)
    model.reduction = config.reduction
    return model


def _adapt(model: ChronosBoltModel, config: ChronosBoltConfig, context_length: int, prediction_length: int) -> None:
    arch = model.architecture
    if prediction_length > arch.prediction_length:
        raise ValueError(
            f"data.prediction_length is {prediction_length} and the head of {config.pretrained} has "
            f"{arch.prediction_length} steps; lower it. Longer horizons are forecast all the same, part by part."
        )
    limit = raised_limit("context_length", arch.context_length, context_length, config.context_length)
    dropout_rate = arch.dropout_rate if config.dropout_rate is None else config.dropout_rate
    lookbacks = config.lookbacks or arch.lookbacks
    model.architecture = arch.replace(context_length=limit, dropout_rate=dropout_rate, lookbacks=lookbacks)
    set_dropout_rate(model, dropout_rate)


def initialize(module: nn.Module, seed: int) -> None:
    """Random values as chronos-forecasting draws them: T5's rules times a small factor, where norms start too."""
    arch = Architecture.of(module)
    for name, parameter in module.named_parameters():
        std = initial_std(name, parameter, arch)
        if std is not None:
            normal_by_name(parameter, name, seed, std)
        else:
            initialize_t5(name, parameter, seed, factor=arch.initializer_factor, d_model=arch.d_model, d_kv=arch.d_kv)


def initial_std(name: str, parameter: Tensor, arch: Architecture) -> float | None:
    """Of what `initialize` draws; None of what begins alike everywhere. The reference takes the width of an input patch
    for that of the output's too."""
    if "patch_embedding." in name and not name.endswith(".bias"):
        fan_in = arch.d_ff if ".output_layer." in name else 2 * arch.input_patch_size
        return arch.initializer_factor * fan_in**-0.5
    return t5_std(name, parameter, factor=arch.initializer_factor, d_model=arch.d_model, d_kv=arch.d_kv)


def initial_stds(module: nn.Module) -> dict[str, float]:
    """By name."""
    arch = Architecture.of(module)
    return drawn({name: initial_std(name, parameter, arch) for name, parameter in module.named_parameters()})


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """Levels, and what the loss is averaged over."""
    return Architecture.of(module).quantiles, module.reduction


FAMILY = ModelFamily(
    name="chronos_bolt",
    config=ChronosBoltConfig,
    build=build,
    initialize=initialize,
    batch=lambda module, windows, device: batch(windows, device),
    sharding=Sharding(blocks=BLOCKS),
    recognises=recognises,
    load=FOLDER.load,
    save=FOLDER.save,
    forecaster=ChronosBoltForecaster,
    flops_per_row=flops_per_row,
    kinds=with_ends(
        inputs=("input_patch_embedding.hidden_layer", "input_patch_embedding.residual_layer"),
        outputs=("output_patch_embedding.output_layer", "output_patch_embedding.residual_layer"),
    ),
    loss_units=loss_units,
    scaling=ScalingHooks(
        width="d_model",
        depths=("num_layers", "num_decoder_layers"),
        resized=resized_t5,
        forward=lambda module: ForwardFactors(Architecture.of(module).d_kv, attention=SCORE_SCALE),
        stds=initial_stds,
        queries=("*Attention.q",),
        branch_ends=("*Attention.o", "DenseReluDense.wo"),
    ),
    lora=LoraHooks(
        ("*Attention.?", "output_patch_embedding.output_layer"),
        ("ChronosBoltModelForForecasting", "chronos.chronos_bolt"),
    ),
)
