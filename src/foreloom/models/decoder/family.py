"""The decoder for the rest of foreloom: how one is built, begun, fed, counted and asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.distributed.sharding import Sharding
from foreloom.models.common.architecture import raised_limit
from foreloom.models.common.count import ParameterGroup, count_parameters, flops_of_row, with_ends
from foreloom.models.common.dropout import set_dropout_rate
from foreloom.models.common.hub_folder import HubFolder, resolve_folder
from foreloom.models.common.initialize import GPT_STD, normal_by_name, std_of, uniform_by_name
from foreloom.models.common.parametrization import (
    Factors,
    ForwardFactors,
    HeadGrowth,
    ScalingHooks,
    heads_of,
    scaled_size,
)
from foreloom.models.common.text import check_vocabulary, load_with_tokenizer, text_batch
from foreloom.models.decoder.architecture import Architecture, DecoderConfig
from foreloom.models.decoder.model import Attention, Decoder, FeedForward
from foreloom.models.family import text_family

FOLDER = HubFolder("decoder", Architecture.recognises, Architecture, Decoder)


def build(config: DecoderConfig, text: Any) -> Decoder:
    """A new model without values for the data section's tokenizer and rows, or a pretrained one.

    ValueError where rows are longer than a learned table of positions, or the tokenizer has more words than the model.
    """
    tokenizer = text.its_tokenizer
    if config.pretrained is None:
        needed = {"max_position_embeddings": text.max_seq_length}
        values = config.new_values_for(needed, of="rows")
        model = FOLDER.empty(Architecture(vocab_size=tokenizer.vocabulary_size, **values))
    else:
        model = load_with_tokenizer(FOLDER, resolve_folder(config.pretrained))
        check_vocabulary(model.architecture.vocab_size, tokenizer)
        model.architecture = model.architecture.replace(**_changes(config, model.architecture, text.max_seq_length))
    set_dropout_rate(model, model.architecture.dropout)
    model.tokenizer = tokenizer.hf
    model.label_smoothing = config.label_smoothing
    model.attn_implementation = config.attn_implementation
    return model


def _changes(config: DecoderConfig, arch: Architecture, length: int) -> dict[str, Any]:
    changes = config.given()
    name, asked = "max_position_embeddings", config.max_position_embeddings
    if arch.positions == "learned" and max(length, asked or 0) > arch.max_position_embeddings:
        raise ValueError(
            f"data.max_seq_length is {length:,} and the pretrained model has learned {arch.max_position_embeddings:,} "
            "positions; lower it."
        )
    return changes | {name: raised_limit(name, arch.max_position_embeddings, length, asked)}


_TABLES = ("embedding.weight", "positions.weight")


def initial_stds(model: nn.Module) -> dict[str, float]:
    """The standard deviation that each matrix begins with, by name, as `Architecture.init` chooses it.

    Matrices that are several in one (queries, keys and values; gate and up) have that of one of them.
    """
    arch = Architecture.of(model)
    stds = {name: GPT_STD for name, _ in model.named_parameters() if name in _TABLES}
    of = lambda fan_in, fan_out, **where: std_of(arch.init, fan_in, fan_out, num_layers=arch.num_layers, **where)
    for name, module in model.named_modules():
        match module:
            case Attention():
                stds[f"{name}.qkv.weight"] = of(arch.d_model, arch.d_model, ends_branch=False)
                stds[f"{name}.output.weight"] = of(arch.d_model, arch.d_model, ends_branch=True)
            case FeedForward():
                stds[f"{name}.input.weight"] = of(arch.d_model, arch.ff_width, ends_branch=False)
                stds[f"{name}.output.weight"] = of(arch.ff_width, arch.d_model, ends_branch=True)
    if not arch.tie_embeddings:
        stds["head.weight"] = of(arch.d_model, arch.vocab_size, ends_branch=False)
    return stds


def initialize(model: nn.Module, seed: int) -> None:
    """Matrices by `initial_stds`, each by its name; gains are 1, biases 0."""
    stds = initial_stds(model)
    for name, parameter in model.named_parameters():
        if name in stds:
            is_uniform = Architecture.of(model).init == "xavier" and name not in _TABLES
            (uniform_by_name if is_uniform else normal_by_name)(parameter, name, seed, stds[name])
        else:
            nn.init.constant_(parameter, float(name.endswith("weight")))


_GROUPS = {
    r"^(embedding|positions)\.": "embedding",
    r"^head\.": "head",
    r"norm\.": "norms",
    r"\.attention\.": "attention",
    r"": "feed-forward",
}


def parameter_groups(module: nn.Module) -> tuple[ParameterGroup, ...]:
    """What its parameters are for."""
    return count_parameters(module, _GROUPS)


def flops_per_row(module: nn.Module, text: Any) -> float:
    """See `count.flops_of_row`."""
    assert isinstance(module, Decoder)
    arch, length = module.architecture, text.max_seq_length
    lookups = [] if module.head is None else [module.embedding.weight]
    lookups += [module.positions.weight] if arch.positions == "learned" else []
    return flops_of_row(module, length, lookups=lookups, attended=arch.num_layers * arch.d_model * length / 2)


def resized(config: Any, width: int, heads: HeadGrowth) -> Any:
    """The section at another width: heads that divide it, and the feed-forward with it."""
    values = config.new_values()
    before, num_heads = values["d_model"], values["num_heads"]
    grown = heads_of(width, num_heads, before // num_heads, heads, even=values["positions"] == "rotary")
    d_ff = scaled_size(values["d_ff"], width / before) if values["d_ff"] else 0
    return dataclasses.replace(config, d_model=width, num_heads=grown, d_ff=d_ff)


def forward_factors(module: nn.Module) -> ForwardFactors:
    """Those of its settings, scores over the root of a head's width, and embeddings as sinusoidal positions ask."""
    arch = Architecture.of(module)
    embedding = arch.embedding_scale * (arch.d_model**0.5 if arch.positions == "sinusoidal" else 1.0)
    scores = arch.attention_scale * arch.head_width**-0.5
    return ForwardFactors(arch.head_width, attention=scores, logits=arch.logit_scale, embedding=embedding)


def with_factors(config: Any, factors: Factors) -> Any:
    """The section with its four scales multiplied; ValueError for deep branches whose sum is normed after each."""
    values = config.new_values()
    if factors.branch != 1 and values["norm_placement"] == "post":
        raise ValueError("parametrization.depth is for model.norm_placement: pre; take one of the two out.")
    scales = {"attention": "attention_scale", "logits": "logit_scale", "embedding": "embedding_scale",
              "branch": "residual_scale"}  # fmt: skip
    changed = {name: values[name] * getattr(factors, factor) for factor, name in scales.items()}
    return dataclasses.replace(config, **{name: scale for name, scale in changed.items() if scale != values[name]})


def logits(module: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
    """(B, T, V), which training does without."""
    assert isinstance(module, Decoder)
    return F.linear(module.hidden(arguments["input_ids"], arguments.get("position_ids")), module.head_weight)


FAMILY = text_family(
    FOLDER,
    name="decoder",
    config=DecoderConfig,
    build=build,
    initialize=initialize,
    batch=lambda module, tokens, device: text_batch(tokens, device),
    sharding=Sharding(blocks=("layers.*",)),
    flops_per_row=flops_per_row,
    parts=parameter_groups,
    kinds=with_ends(outputs=("head",)),
    scaling=ScalingHooks(
        width="d_model",
        depths=("num_layers",),
        resized=resized,
        forward=forward_factors,
        stds=initial_stds,
        tied=lambda module: "embedding.weight" if Architecture.of(module).tie_embeddings else None,
        branch_ends=("attention.output", "feed_forward.output"),
        with_factors=with_factors,
        logits=logits,
    ),
)
