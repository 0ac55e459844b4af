"""Time-MoE for the rest of foreloom: how one is built, balanced, counted and asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foreloom.distributed.sharding import Sharding
from foreloom.models.common.count import ParameterGroup, count_parameters, with_ends
from foreloom.models.common.dropout import set_dropout_rate
from foreloom.models.common.hub_folder import resolve_folder
from foreloom.models.common.lora import LoraHooks
from foreloom.models.common.moe import MixtureOfExperts, balance_bias
from foreloom.models.common.parametrization import ForwardFactors, HeadGrowth, ScalingHooks, heads_of, scaled_size
from foreloom.models.family import ExpertHooks, ModelFamily, Tally, WindowLengths
from foreloom.models.time_moe.architecture import (
    DEFAULT_BALANCE_RATE,
    ROUTER_FIELDS,
    Architecture,
    Balance,
    TimeMoeConfig,
    flops_per_row,
)
from foreloom.models.time_moe.batch import batch
from foreloom.models.time_moe.checkpoint import FOLDER, initialize, load, official_views, recognises
from foreloom.models.time_moe.forecast import TimeMoeForecaster
from foreloom.models.time_moe.model import TimeMoeForPrediction
from foreloom.objectives.router import load_figures


def build(config: TimeMoeConfig, data: WindowLengths) -> TimeMoeForPrediction:
    """A new model without values, or a pretrained one, that takes windows of the two lengths (in steps).

    ValueError where they are longer than the model's maximum, and where the recipe and a checkpoint disagree.
    """
    context_length, prediction_length = data.context_length, data.prediction_length
    changes = config.given()
    if config.pretrained is not None:
        model = FOLDER.load(resolve_folder(config.pretrained))
        _check_changes(config, model.architecture)
    else:
        model = FOLDER.empty(Architecture(**config.new_values()))
    changes |= _set_balance(model, config)
    model.protocol = config.protocol
    model.attn_implementation = config.attn_implementation
    model.router_z_loss_factor = config.router_z_loss_factor
    _adapt(model, model.architecture.replace(**changes))
    num_steps, limit = context_length + prediction_length - 1, model.architecture.max_position_embeddings
    if num_steps > limit:
        raise ValueError(
            f"data.context_length {context_length} and data.prediction_length {prediction_length} make windows of "
            f"{num_steps} inputs, and model.max_position_embeddings is {limit}; shorten the windows or raise the limit."
        )
    return model


def _set_balance(model: TimeMoeForPrediction, config: TimeMoeConfig) -> dict[str, Any]:
    """What the architecture has to change for the balance asked for, or that a checkpoint was trained with."""
    arch = model.architecture
    if arch.use_dense:
        return {}
    without_loss: Balance = "bias" if arch.use_expert_bias else "none"
    has_loss = arch.router_aux_loss_factor or config.router_aux_loss_factor
    balance = config.balance or ("aux_loss" if has_loss else without_loss)
    if balance == "bias":
        model.balance_rate = config.balance_rate or DEFAULT_BALANCE_RATE
        return {"router_aux_loss_factor": 0.0, "use_expert_bias": True}
    if balance == "none":
        return {"router_aux_loss_factor": 0.0}
    factor = config.router_aux_loss_factor or arch.router_aux_loss_factor
    return {"router_aux_loss_factor": factor or Architecture.router_aux_loss_factor}


def _check_changes(config: TimeMoeConfig, arch: Architecture) -> None:
    asked = config.max_position_embeddings
    if asked is not None and asked < arch.max_position_embeddings:
        raise ValueError(
            f"model.max_position_embeddings is {asked} and the checkpoint has {arch.max_position_embeddings}; a limit "
            "is never lowered, leave it out."
        )
    idle = [name for name in ROUTER_FIELDS if getattr(config, name)] if arch.use_dense else []
    if idle:
        raise ValueError(
            f"model.{', model.'.join(idle)}: {config.pretrained} is a dense model and has no experts; leave it out."
        )


def _adapt(model: TimeMoeForPrediction, arch: Architecture) -> None:
    """Give a model another architecture that its weights fit, with biases of 0 where its routers had none."""
    model.architecture = arch
    set_dropout_rate(model, arch.attention_dropout)
    for layer in model.modules():
        if isinstance(layer, MixtureOfExperts) and arch.use_expert_bias and layer.expert_bias is None:
            layer.expert_bias = torch.zeros(arch.num_experts, device=layer.gate.weight.device)


def after_update(module: nn.Module, tally: Tally, applied: Tensor) -> None:
    """Move the routers' biases towards an even load of the global batch, where `balance: bias` was asked for."""
    rate = module.balance_rate
    assert isinstance(rate, float)
    if not rate:
        return
    routers = [layer for layer in module.modules() if isinstance(layer, MixtureOfExperts)]
    for router, load_E in zip(routers, tally["expert_load"], strict=True):
        assert router.expert_bias is not None
        balance_bias(router.expert_bias, load_E, rate, applied)


def figures(module: nn.Module, tally: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means since the last log line, and how evenly the experts were used.

    `aux_excess` is the auxiliary loss above the number of experts a token, its value where all experts are used evenly.
    """
    means = {name: float(entry[0] / max(entry[1], 1)) for name, entry in tally.items() if name != "expert_load"}
    if "expert_load" not in tally:
        return means
    excess = means["aux_loss"] - Architecture.of(module).num_experts_per_tok
    return means | {"aux_excess": excess} | load_figures(tally["expert_load"])


_GROUPS = {
    r"^model\.embed_layer\.": "embedding",
    r"\.self_attn\.": "attention",
    r"\.ffn_layer\.(gate|shared_expert_gate)\.": "routers and gates",
    r"\.ffn_layer\.experts\.": "experts",
    r"\.ffn_layer\.shared_expert\.": "shared experts",
    r"\.ffn_layer\.": "feed-forward",
    r"norm\.": "norms",
    r"^lm_heads\.": "heads",
}


def parameter_groups(module: nn.Module) -> tuple[ParameterGroup, ...]:
    """What its parameters are for. A step runs through k of a layer's E experts and through the shared one, the
    feed-forward of a dense model."""
    arch = Architecture.of(module)
    share = Fraction(arch.num_experts_per_tok, arch.num_experts)
    return count_parameters(module, _GROUPS, {"routers and gates": Fraction(1), "experts": share})


def teach_transformers() -> None:
    """See `time_moe.auto`, which needs transformers."""
    from foreloom.models.time_moe import auto  # noqa: F401


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """Horizons, over which the loss is averaged, and what it counts."""
    return Architecture.of(module).horizon_lengths, module.protocol


def resized(config: Any, width: int, heads: HeadGrowth) -> Any:
    """The section at another width: heads that divide it, as many queries to a head of keys as nearly as it goes, and
    experts with it."""
    values = config.new_values()
    num_heads, ratio = values["num_attention_heads"], width / values["hidden_size"]
    grown = heads_of(width, num_heads, values["hidden_size"] // num_heads, heads, even=True)
    shared = grown * values["num_key_value_heads"] / num_heads
    return dataclasses.replace(
        config,
        hidden_size=width,
        num_attention_heads=grown,
        num_key_value_heads=min((n for n in range(1, grown + 1) if grown % n == 0), key=lambda n: abs(n - shared)),
        intermediate_size=scaled_size(values["intermediate_size"], ratio, values["num_experts_per_tok"]),
    )


def initial_stds(module: nn.Module) -> dict[str, float]:
    """Of what `initialize` draws."""
    std = Architecture.of(module).initializer_range
    return {name: std for name, _ in module.named_parameters() if not name.endswith(("norm.weight", "bias"))}


def forward_factors(module: nn.Module) -> ForwardFactors:
    """Scores over the root of a head's width."""
    width = Architecture.of(module).head_width
    return ForwardFactors(width, attention=width**-0.5)


FAMILY = ModelFamily(
    name="time_moe",
    config=TimeMoeConfig,
    build=build,
    initialize=initialize,
    batch=lambda module, windows, device: batch(windows, device),
    sharding=Sharding(
        blocks=("model.layers.[0-9]", "model.layers.[0-9][0-9]"), experts=("model.layers.*.ffn_layer.experts",)
    ),
    recognises=recognises,
    load=load,
    save=FOLDER.save,
    forecaster=TimeMoeForecaster,
    flops_per_row=flops_per_row,
    parts=parameter_groups,
    kinds=with_ends(inputs=("embed_layer",), outputs=("lm_heads", "ffn_layer.gate", "shared_expert_gate")),
    loss_units=loss_units,
    experts=ExpertHooks(after_update=after_update, figures=figures, loads=("expert_load",)),
    lora=LoraHooks(("self_attn.*_proj", "experts.*"), published_names=official_views),
    scaling=ScalingHooks(
        width="hidden_size",
        depths=("num_hidden_layers",),
        resized=resized,
        forward=forward_factors,
        stds=initial_stds,
        queries=("self_attn.q_proj",),
        branch_ends=("self_attn.o_proj", "down_proj"),
        logits=lambda module, arguments: module(**{**arguments, "labels": None}).logits,
    ),
    teach_transformers=teach_transformers,
)
