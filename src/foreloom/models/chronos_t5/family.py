"""Chronos-T5 for the rest of foreloom: how one is built, begins, is stored and asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from foreloom.distributed.sharding import Sharding
from foreloom.models.chronos_t5.architecture import (
    DEFAULT_BALANCE_RATE,
    EXPERT_FIELDS,
    MOE_PIPELINE_CLASS,
    PIPELINE_CLASS,
    Architecture,
    ChronosT5Config,
    flops_per_row,
)
from foreloom.models.chronos_t5.batch import batch
from foreloom.models.chronos_t5.causal import BLOCKS as CAUSAL_BLOCKS
from foreloom.models.chronos_t5.causal import CausalChronosModel, causal_std, initialize_causal
from foreloom.models.chronos_t5.experts import (
    SampleExperts,
    after_update,
    expert_std,
    figures,
    initialize_experts,
    needs_survey,
    published_views,
    start_balance,
)
from foreloom.models.chronos_t5.forecast import ChronosT5Forecaster
from foreloom.models.chronos_t5.model import ChronosT5Model
from foreloom.models.common.architecture import raised_limit
from foreloom.models.common.count import ParameterGroup, count_parameters, shapes_of_one, with_ends
from foreloom.models.common.hub_folder import HubFolder, resolve_folder
from foreloom.models.common.lora import LoraHooks
from foreloom.models.common.parametrization import ForwardFactors, HeadGrowth, ScalingHooks, heads_of, scaled_size
from foreloom.models.common.t5.attention import SCORE_SCALE
from foreloom.models.common.t5.shape import (
    TIED_COPIES,
    drawn,
    initialize_t5,
    resized_t5,
    t5_std,
    without_tied_copies,
)
from foreloom.models.common.t5.stack import BLOCKS
from foreloom.models.family import ExpertHooks, ModelFamily, WindowLengths

Model = ChronosT5Model | CausalChronosModel


def recognises(config: Mapping[str, Any]) -> bool:
    """Is this config.json one of Chronos-T5?"""
    nested = config.get("chronos_config")
    if not isinstance(nested, Mapping) or "tokenizer_class" not in nested:
        return False
    return config.get("chronos_pipeline_class", PIPELINE_CLASS) in (PIPELINE_CLASS, MOE_PIPELINE_CLASS)


def own_tensors(tensors: Mapping[str, Tensor], file: Path, arch: Architecture) -> dict[str, Tensor]:
    """The embedding once, which is the head too."""
    embedding = "transformer.wte.weight" if arch.model_type == "causal" else "shared.weight"
    return without_tied_copies(tensors, file, (*TIED_COPIES, "lm_head.weight"), embedding)


def module_of(arch: Architecture) -> Model:
    return CausalChronosModel(arch) if arch.model_type == "causal" else ChronosT5Model(arch)


FOLDER = HubFolder("Chronos-T5", recognises, Architecture, module_of, own_tensors, published_names=published_views)

_FIXED_EXPERTS = ("num_experts", "router_hidden_dim")


def build(config: ChronosT5Config, data: WindowLengths) -> Model:
    """A new model without values, or a pretrained one whose limits are raised to the data's lengths (in steps).

    A regular checkpoint with `use_moe` gets experts, drawn by their names with seed 0.
    """
    context_length, prediction_length = data.context_length, data.prediction_length
    needed = {"context_length": context_length, "prediction_length": prediction_length}
    if config.pretrained is None:
        model = FOLDER.empty(_new_architecture(config, needed))
    else:
        model = FOLDER.load(resolve_folder(config.pretrained))
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
    values = config.new_values_for(needed)
    if values.get("model_type") == "causal":
        if values["d_model"] % values["num_heads"]:
            raise ValueError(f"d_model {values['d_model']} is not a multiple of num_heads {values['num_heads']}.")
        values["d_kv"] = values["d_model"] // values["num_heads"]
    return Architecture(**values)


def _adapted(arch: Architecture, config: ChronosT5Config, needed: dict[str, int]) -> Architecture:
    """Limits raised, never lowered; what the recipe sets of the rest."""
    changes = {
        name: asked for name, asked in config.given().items() if name not in (*needed, *EXPERT_FIELDS, "use_moe")
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
    asked = {name: value for name, value in config.given().items() if name in EXPERT_FIELDS}
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
        raise ValueError(
            f"model.use_moe is false and {config.pretrained} has experts in place of a head; leave it out."
        )
    for name, value in asked.items():
        if name in _FIXED_EXPERTS and value != getattr(arch, name):
            raise ValueError(
                f"model.{name} is {value} and {config.pretrained} has {getattr(arch, name)}; leave it out."
            )
    return arch.replace(**asked)


def _carried_over(model: Model, arch: Architecture) -> Model:
    """A model of that architecture with the weights there are; experts that are new are drawn, biases 0."""
    adapted = FOLDER.empty(arch)
    if adapted.moe is not None:
        start_balance(adapted.moe)
    own, have = published_views(adapted.state_dict()), published_views(model.state_dict())
    parameters = published_views(dict(adapted.named_parameters()))
    for name, tensor in own.items():
        if name in have:
            tensor.copy_(have[name])
        elif name in parameters:
            initialize_experts(name, parameters[name], seed=0)
    return adapted


def initialize(module: nn.Module, seed: int) -> None:
    """Random values by T5's rules times a factor, and an even start for experts."""
    arch = Architecture.of(module)
    for name, parameter in published_views(dict(module.named_parameters())).items():
        if name.startswith("moe."):
            initialize_experts(name, parameter, seed)
        elif arch.model_type == "causal":
            initialize_causal(name, parameter, arch, seed)
        else:
            initialize_t5(name, parameter, seed, factor=arch.initializer_factor, d_model=arch.d_model, d_kv=arch.d_kv)
    if isinstance(module.moe, SampleExperts):
        start_balance(module.moe)


def initial_stds(module: nn.Module) -> dict[str, float]:
    """Of what `initialize` draws."""
    arch = Architecture.of(module)
    its = {"factor": arch.initializer_factor, "d_model": arch.d_model, "d_kv": arch.d_kv}

    shapes = shapes_of_one(module)

    def std_of(name: str, parameter: nn.Parameter) -> float | None:
        if len(shapes[name]) < 2:
            return None
        if name.startswith("moe."):
            return expert_std(name, parameter)
        return causal_std(name, arch) if arch.model_type == "causal" else t5_std(name, parameter, **its)

    return drawn({name: std_of(name, parameter) for name, parameter in module.named_parameters()})


def resized(config: Any, width: int, heads: HeadGrowth) -> Any:
    """The section at another width; of a causal model with heads that divide it."""
    if config.model_type != "causal":
        return resized_t5(config, width, heads)
    values = config.new_values()
    num_heads, before = values["num_heads"], values["d_model"]
    grown = heads_of(width, num_heads, before // num_heads, heads, even=False)
    d_ff = scaled_size(values["d_ff"], width / before)
    return dataclasses.replace(config, d_model=width, num_heads=grown, d_ff=d_ff)


def forward_factors(module: nn.Module) -> ForwardFactors:
    """T5 leaves scores unscaled and may scale what its head is given; GPT-2 divides scores by the root of a head's
    width."""
    arch = Architecture.of(module)
    if arch.model_type == "causal":
        return ForwardFactors(arch.d_kv, attention=arch.d_kv**-0.5)
    return ForwardFactors(
        arch.d_kv, attention=SCORE_SCALE, logits=arch.d_model**-0.5 if arch.scale_decoder_outputs else 1.0
    )


def tied_table(module: nn.Module) -> str | None:
    """The embedding, which is the head too but where experts have heads of their own."""
    arch = Architecture.of(module)
    return "transformer.wte.weight" if arch.model_type == "causal" else None if arch.use_moe else "shared.weight"


_GROUPS = {
    r"^shared\.|^transformer\.wte\.": "embedding",
    r"^transformer\.wpe\.": "positions",
    r"^encoder\.": "encoder",
    r"^decoder\.|^transformer\.": "decoder",
    r"^moe\.router\.": "router",
    r"^moe\.experts\.": "experts, with their heads",
}


def parameter_groups(module: nn.Module) -> tuple[ParameterGroup, ...]:
    """What its parameters are for. With experts, a series runs through k of E. Without, the embedding is the head too
    and counts once."""
    arch = Architecture.of(module)
    share = Fraction(arch.num_active_experts, arch.num_experts)
    return count_parameters(module, _GROUPS, {"router": Fraction(1), "experts, with their heads": share})


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """The tokens."""
    arch = Architecture.of(module)
    return arch.n_tokens, arch.n_special_tokens, arch.low_limit, arch.high_limit, arch.use_eos_token


FAMILY = ModelFamily(
    name="chronos_t5",
    config=ChronosT5Config,
    build=build,
    initialize=initialize,
    batch=batch,
    sharding=Sharding(blocks=(*BLOCKS, *CAUSAL_BLOCKS), experts=("moe.experts",)),
    recognises=recognises,
    load=FOLDER.load,
    save=FOLDER.save,
    forecaster=ChronosT5Forecaster,
    flops_per_row=flops_per_row,
    parts=parameter_groups,
    kinds=with_ends(outputs=("router", "head_weight")),
    loss_units=loss_units,
    experts=ExpertHooks(after_update=after_update, figures=figures, loads=("expert_load",), needs_survey=needs_survey),
    scaling=ScalingHooks(
        width="d_model",
        depths=("num_layers", "num_decoder_layers"),
        resized=resized,
        forward=forward_factors,
        stds=initial_stds,
        tied=tied_table,
        queries=("*Attention.q",),
        branch_ends=("*Attention.o", "DenseReluDense.wo", "attn.c_proj", "mlp.c_proj"),
        last_norm=("decoder.final_layer_norm", "transformer.ln_f"),
        transposed=("c_attn", "c_fc", "c_proj"),
        logits=lambda module, arguments: module(**arguments).logits,
    ),
    lora=LoraHooks(
        ("*Attention.?", "moe.experts.*"),
        ("T5ForConditionalGeneration", "transformers.models.t5.modeling_t5"),
        published_views,
    ),
)
