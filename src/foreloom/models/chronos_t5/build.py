"""A recipe's `model` section becomes a Chronos-T5: a new one, or a pretrained one that is adapted to the run."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from foreloom.models.chronos_t5 import checkpoint
from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.config import (
    CHANGEABLE_FIELDS,
    DEFAULT_BALANCE_RATE,
    DEFAULT_LOAD_BALANCING_WEIGHT,
    EXPERT_FIELDS,
    ChronosT5Config,
    new_values,
)
from foreloom.models.chronos_t5.experts import initialize_experts
from foreloom.models.chronos_t5.model import ChronosT5Model
from foreloom.models.common.files import resolve_folder

logger = logging.getLogger(__name__)

_NEW_EXPERTS = ("num_experts", "num_active_experts", "router_hidden_dim")


def build(config: ChronosT5Config, *, context_length: int, prediction_length: int) -> ChronosT5Model:
    """A new model without values, or a pretrained one whose limits are raised to the data's lengths (in steps).

    A regular checkpoint with `use_moe` gets experts, drawn by their names with seed 0.
    """
    needed = {"context_length": context_length, "prediction_length": prediction_length}
    if config.pretrained is None:
        model = checkpoint.build_empty(_with_balance(_new_architecture(config, needed), config))
    else:
        model = checkpoint.load(resolve_folder(config.pretrained))
        arch = _with_balance(_with_experts(_adapted(model.architecture, config, needed), config), config)
        model = _carried_over(model, arch)
    model.router_z_loss_factor = config.router_z_loss_factor
    if model.architecture.use_expert_bias:
        model.balance_rate = config.balance_rate or DEFAULT_BALANCE_RATE
    return model


def _new_architecture(config: ChronosT5Config, needed: dict[str, int]) -> Architecture:
    values: dict[str, Any] = needed | new_values(config)
    for name, steps in needed.items():
        if values[name] < steps:
            raise ValueError(
                f"model.{name} is {values[name]} and the data's windows need {steps}; raise it or leave it out."
            )
    if values.get("model_type") == "causal":
        if values["d_model"] % values["num_heads"]:
            raise ValueError(f"d_model {values['d_model']} is not a multiple of num_heads {values['num_heads']}.")
        values["d_kv"] = values["d_model"] // values["num_heads"]
    return Architecture(**values)


def _adapted(arch: Architecture, config: ChronosT5Config, needed: dict[str, int]) -> Architecture:
    """Limits raised, never lowered, each change logged; what the recipe sets of the rest."""
    changes: dict[str, Any] = {}
    for name in CHANGEABLE_FIELDS:
        asked, old = getattr(config, name), getattr(arch, name)
        if name in needed:
            if asked is not None and asked < old:
                raise ValueError(
                    f"model.{name} is {asked} and the checkpoint has {old}; a limit is never lowered, leave it out."
                )
            changes[name] = max(old, needed[name], asked or 0)
            if changes[name] == old:
                continue
            if arch.model_type == "causal":
                raise ValueError(
                    f"the data's windows need a {name} of {changes[name]} and this causal model has positions for "
                    f"{old}; lower data.{name}."
                )
            logger.info("%s: %s -> %s", name, old, changes[name])
        elif asked is not None:
            changes[name] = asked
    return arch.replace(**changes)


def _with_experts(arch: Architecture, config: ChronosT5Config) -> Architecture:
    """The experts the recipe asks for, where the checkpoint has none; ValueError where they contradict its own."""
    asked = {name: value for name in _NEW_EXPERTS if (value := getattr(config, name)) is not None}
    if not arch.use_moe:
        if config.use_moe:
            values = {"load_balancing_weight": DEFAULT_LOAD_BALANCING_WEIGHT, **asked}
            return arch.replace(use_moe=True, **values)
        idle = [name for name in EXPERT_FIELDS if getattr(config, name)]
        if idle:
            raise ValueError(
                f"model.{', model.'.join(idle)}: {config.pretrained} has no experts; add them with model.use_moe=true, "
                "or leave these out."
            )
        return arch
    if config.use_moe is False:
        raise ValueError(f"model.use_moe is false and {config.pretrained} has experts in place of a head.")
    for name, value in asked.items():
        if name != "num_active_experts" and value != getattr(arch, name):
            raise ValueError(
                f"model.{name} is {value} and {config.pretrained} has {getattr(arch, name)}; leave it out."
            )
    return arch.replace(**asked)


def _with_balance(arch: Architecture, config: ChronosT5Config) -> Architecture:
    if not arch.use_moe:
        return arch
    balance = config.balance or ("bias" if arch.use_expert_bias else "loss")
    if balance != "loss":
        return arch.replace(load_balancing_weight=0.0, use_expert_bias=balance == "bias" or arch.use_expert_bias)
    weight = config.load_balancing_weight or arch.load_balancing_weight or DEFAULT_LOAD_BALANCING_WEIGHT
    return arch.replace(load_balancing_weight=weight)


def _carried_over(model: ChronosT5Model, arch: Architecture) -> ChronosT5Model:
    """A model of that architecture with the weights there are; experts that are new are drawn, biases 0."""
    adapted = checkpoint.build_empty(arch)
    own, have = adapted.state_dict(), model.state_dict()
    for name, tensor in own.items():
        if name in have:
            tensor.copy_(have[name])
        elif name == "moe.expert_bias":
            tensor.zero_()
        else:
            initialize_experts(name, nn.Parameter(tensor, requires_grad=False), seed=0)
    return adapted
