"""The LSTM for the rest of foreloom: how one is built, begun, fed, carried on, counted and asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foreloom.distributed.sharding import Sharding
from foreloom.models.common.count import ParameterGroup, count_parameters, flops_of_row, with_ends
from foreloom.models.common.hub_folder import HubFolder, resolve_folder
from foreloom.models.common.initialize import orthogonal_by_name, std_of, uniform_by_name
from foreloom.models.common.parametrization import Factors, ForwardFactors, ScalingHooks
from foreloom.models.common.recurrent import recurrent_batch
from foreloom.models.common.text import check_vocabulary, load_with_tokenizer, with_tokenizer
from foreloom.models.family import text_family
from foreloom.models.lstm.architecture import Architecture, LstmConfig
from foreloom.models.lstm.model import Layer, Lstm

EMBEDDING_STD = 0.1 / 3**0.5
"""Uniform between -0.1 and 0.1 (Merity et al. 2018)."""


FOLDER = HubFolder("LSTM", Architecture.recognises, Architecture, Lstm)


def build(config: LstmConfig, text: Any) -> Lstm:
    """A new model without values for the data section's tokenizer, or a pretrained one.

    ValueError where the tokenizer has more words than a pretrained model.
    """
    tokenizer = text.its_tokenizer
    if config.pretrained is None:
        model = FOLDER.empty(Architecture(vocab_size=tokenizer.vocabulary_size, **config.new_values()))
    else:
        model = load_with_tokenizer(FOLDER, resolve_folder(config.pretrained))
        check_vocabulary(model.architecture.vocab_size, tokenizer)
        model.architecture = model.architecture.replace(**config.given())
    for layer in model.modules():
        if isinstance(layer, Layer):
            layer.recurrent_dropout = model.architecture.recurrent_dropout
    model.tokenizer = tokenizer.hf
    model.bptt_length, model.label_smoothing = config.bptt_length, config.label_smoothing
    return model


def initial_stds(model: nn.Module) -> dict[str, float]:
    """The standard deviation that each matrix begins with, by name: 0.058 of the embedding, Xavier's of each gate's
    input matrix and of the head, 1 / sqrt(D) of the recurrent ones, which are orthogonal."""
    arch = Architecture.of(model)
    xavier = lambda fan_out: std_of("xavier", arch.d_model, fan_out, ends_branch=False, num_layers=arch.num_layers)
    stds = {"embedding.weight": EMBEDDING_STD}
    for index in range(arch.num_layers):
        stds[f"layers.{index}.weight_ih"] = xavier(arch.d_model)
        stds[f"layers.{index}.weight_hh"] = arch.d_model**-0.5
    return stds if arch.tie_embeddings else stds | {"head.weight": xavier(arch.vocab_size)}


def initialize(model: nn.Module, seed: int) -> None:
    """Matrices by `initial_stds`, each by its name; gains are 1, biases 0 but for `Architecture.forget_bias`."""
    arch, stds = Architecture.of(model), initial_stds(model)
    for name, parameter in model.named_parameters():
        if name.endswith("weight_hh"):
            orthogonal_by_name(parameter, name, seed, num_blocks=4)
        elif name in stds:
            uniform_by_name(parameter, name, seed, stds[name])
        else:
            nn.init.constant_(parameter, float(name.endswith("norm.weight")))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, Layer):
                layer.bias[arch.d_model : 2 * arch.d_model] = arch.forget_bias


def carry(module: nn.Module, lanes: int, device: torch.device) -> Mapping[str, Tensor]:
    """The state before any text."""
    assert isinstance(module, Lstm)
    return {name: value.to(device) for name, value in module.beginning(lanes).items()}


_GROUPS = {r"^embedding\.": "embedding", r"^head\.": "head", r"norm\.": "norms", r"": "recurrent"}


def parameter_groups(module: nn.Module) -> tuple[ParameterGroup, ...]:
    """What its parameters are for."""
    return count_parameters(module, _GROUPS)


def flops_per_row(module: nn.Module, text: Any) -> float:
    """See `count.flops_of_row`: a layer costs 8 D^2 weights a token, those of the recurrence included."""
    assert isinstance(module, Lstm)
    lookups = [] if module.head is None else [module.embedding.weight]
    return flops_of_row(module, text.max_seq_length, lookups=lookups)


def with_factors(config: Any, factors: Factors) -> Any:
    """The section with its scale of the logits multiplied."""
    if factors.logits == 1:
        return config
    return dataclasses.replace(config, logit_scale=config.new_values()["logit_scale"] * factors.logits)


def logits(module: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
    """(R, T, V) of rows that begin anew, which training does without."""
    assert isinstance(module, Lstm)
    token_RT = arguments["input_ids"]
    return F.linear(module.hidden(token_RT, module.beginning(len(token_RT)))[0], module.head_weight)


FAMILY = text_family(
    FOLDER,
    name="lstm",
    config=LstmConfig,
    data_for=with_tokenizer,
    build=build,
    initialize=initialize,
    batch=lambda module, tokens, device: recurrent_batch(tokens, device),
    sharding=Sharding(blocks=("layers.*",)),
    flops_per_row=flops_per_row,
    parts=parameter_groups,
    kinds=with_ends(outputs=("head",)),
    carry=carry,
    scaling=ScalingHooks(
        width="d_model",
        depths=("num_layers",),
        resized=lambda config, width, heads: dataclasses.replace(config, d_model=width),
        forward=lambda module: ForwardFactors(1, attention=1.0, logits=Architecture.of(module).logit_scale),
        stds=initial_stds,
        tied=lambda module: "embedding.weight" if Architecture.of(module).tie_embeddings else None,
        with_factors=with_factors,
        logits=logits,
    ),
)
