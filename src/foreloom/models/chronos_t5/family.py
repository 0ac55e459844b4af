"""Chronos-T5 for the rest of foreloom: the family's record."""

from __future__ import annotations

from typing import Any

from torch import nn

from foreloom.distributed.sharding import Sharding
from foreloom.models.chronos_t5 import checkpoint
from foreloom.models.chronos_t5.architecture import architecture_of_module
from foreloom.models.chronos_t5.batch import batch
from foreloom.models.chronos_t5.build import build
from foreloom.models.chronos_t5.causal import BLOCKS as CAUSAL_BLOCKS
from foreloom.models.chronos_t5.config import ChronosT5Config
from foreloom.models.chronos_t5.flops import flops_per_row
from foreloom.models.chronos_t5.forecast import ChronosT5Forecaster
from foreloom.models.chronos_t5.initialize import initialize
from foreloom.models.chronos_t5.parts import parts
from foreloom.models.chronos_t5.routers import after_update, figures, needs_survey
from foreloom.models.common.t5.stack import BLOCKS
from foreloom.models.family import ExpertHooks, ModelFamily


def forecaster(module: nn.Module) -> ChronosT5Forecaster:
    """A forecaster around a module, which may be in training and sharded."""
    return ChronosT5Forecaster(module)


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """The tokens."""
    arch = architecture_of_module(module)
    return arch.n_tokens, arch.n_special_tokens, arch.low_limit, arch.high_limit, arch.use_eos_token


FAMILY = ModelFamily(
    name="chronos_t5",
    config=ChronosT5Config,
    build=lambda section, data: build(
        section, context_length=data.context_length, prediction_length=data.prediction_length
    ),
    initialize=initialize,
    batch=batch,
    sharding=Sharding(blocks=(*BLOCKS, *CAUSAL_BLOCKS)),
    recognises=checkpoint.recognises,
    load=checkpoint.load,
    save=checkpoint.save,
    forecaster=forecaster,
    flops_per_row=lambda module, data: flops_per_row(module, data.context_length, data.prediction_length),
    parts=parts,
    loss_units=loss_units,
    experts=ExpertHooks(after_update=after_update, figures=figures, loads=("expert_load",), needs_survey=needs_survey),
)
