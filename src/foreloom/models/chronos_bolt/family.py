"""Chronos-Bolt for the rest of foreloom: the family's record."""

from __future__ import annotations

from typing import Any

from torch import nn

from foreloom.distributed.sharding import Sharding
from foreloom.models.chronos_bolt import checkpoint
from foreloom.models.chronos_bolt.architecture import architecture_of_module
from foreloom.models.chronos_bolt.batch import batch
from foreloom.models.chronos_bolt.build import build
from foreloom.models.chronos_bolt.config import ChronosBoltConfig
from foreloom.models.chronos_bolt.flops import flops_per_row
from foreloom.models.chronos_bolt.forecast import ChronosBoltForecaster
from foreloom.models.chronos_bolt.initialize import initialize
from foreloom.models.common.t5.stack import BLOCKS
from foreloom.models.family import ModelFamily


def forecaster(module: nn.Module) -> ChronosBoltForecaster:
    """A forecaster around a module, which may be in training and sharded."""
    return ChronosBoltForecaster(module)


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """Levels, and what the loss is averaged over."""
    return architecture_of_module(module).quantiles, module.reduction


FAMILY = ModelFamily(
    name="chronos_bolt",
    config=ChronosBoltConfig,
    build=lambda section, data: build(
        section, context_length=data.context_length, prediction_length=data.prediction_length
    ),
    initialize=initialize,
    batch=lambda module, windows, device: batch(windows, device),
    sharding=Sharding(blocks=BLOCKS),
    recognises=checkpoint.recognises,
    load=checkpoint.load,
    save=checkpoint.save,
    forecaster=forecaster,
    flops_per_row=lambda module, data: flops_per_row(module, data.context_length, data.prediction_length),
    loss_units=loss_units,
)
