"""A recipe's `model` section becomes a Chronos-T5: a new one, or a pretrained one that is adapted to the run."""

from __future__ import annotations

from typing import Any

from foreloom.models.chronos_t5 import checkpoint
from foreloom.models.chronos_t5.architecture import Architecture
from foreloom.models.chronos_t5.causal import CausalChronosModel
from foreloom.models.chronos_t5.config import (
    CHANGEABLE_FIELDS,
    DEFAULT_BALANCE_RATE,
    EXPERT_FIELDS,
    ChronosT5Config,
    new_values,
)
from foreloom.models.chronos_t5.experts import initialize_experts, start_balance
from foreloom.models.chronos_t5.model import ChronosT5Model
from foreloom.models.common.files import resolve_folder
from foreloom.models.common.limits import raised_limit

Model = ChronosT5Model | CausalChronosModel

_EXPERTS = ("num_experts", "num_active_experts", "router_hidden_dim", "router_choice", "load_balancing_weight")
_FIXED_EXPERTS = ("num_experts", "router_hidden_dim")


def build(config: ChronosT5Config, *, context_length: int, prediction_length: int) -> Model:
    """A new model without values, or a pretrained one whose limits are raised to the data's lengths (in steps).

    A regular checkpoint with `use_moe` gets experts, drawn by their names with seed 0.
    """
    needed = {"context_length": context_length, "prediction_length": prediction_length}
    if config.pretrained is None:
        model = checkpoint.build_empty(_new_architecture(config, needed))
    else:
        model = checkpoint.load(resolve_folder(config.pretrained))
        arch = _with_experts(_adapted(model.architecture, config, needed), config)
        if config.balance_rate is not None and arch.router_choice != "biased":
            raise ValueError(
                f"model.balance_rate has no effect on {config.pretrained}, whose experts are chosen by router_choice: "
                f"{arch.router_choice}; set model.router_choice=biased, or remove it."
            )
        model = _carried_over(model, arch)
    if isinstance(model, ChronosT5Model):
        model.router_z_loss_factor = config.router_z_loss_factor
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
    """Limits raised, never lowered; what the recipe sets of the rest."""
    changes: dict[str, Any] = {
        name: asked for name in CHANGEABLE_FIELDS if (asked := getattr(config, name)) is not None and name not in needed
    }
    for name, steps in needed.items():
        has = getattr(arch, name)
        changes[name] = raised_limit(name, has, steps, getattr(config, name))
        if arch.model_type == "causal" and changes[name] != has:
            raise ValueError(
                f"the data's windows need a {name} of {changes[name]} and this causal model has positions for {has}; "
                f"lower data.{name}."
            )
    return arch.replace(**changes)


def _with_experts(arch: Architecture, config: ChronosT5Config) -> Architecture:
    """The experts the recipe asks for, where the checkpoint has none; ValueError where they contradict its own."""
    asked = {name: value for name in _EXPERTS if (value := getattr(config, name)) is not None}
    if not arch.use_moe:
        if config.use_moe:
            return arch.replace(use_moe=True, **asked)
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
        if name in _FIXED_EXPERTS and value != getattr(arch, name):
            raise ValueError(
                f"model.{name} is {value} and {config.pretrained} has {getattr(arch, name)}; leave it out."
            )
    return arch.replace(**asked)


def _carried_over(model: Model, arch: Architecture) -> Model:
    """A model of that architecture with the weights there are; experts that are new are drawn, biases 0."""
    adapted = checkpoint.build_empty(arch)
    if adapted.moe is not None:
        start_balance(adapted.moe)
    own, have = adapted.state_dict(), model.state_dict()
    parameters = dict(adapted.named_parameters())
    for name, tensor in own.items():
        if name in have:
            tensor.copy_(have[name])
        elif name in parameters:
            initialize_experts(name, parameters[name], seed=0)
    return adapted
