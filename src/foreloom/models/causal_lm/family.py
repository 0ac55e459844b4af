"""Causal language models for the rest of foreloom: how one is built, fed, counted and asked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from foreloom.data.batch import DataSection
from foreloom.distributed.sharding import Sharding
from foreloom.models.causal_lm import folder
from foreloom.models.causal_lm.config import CausalLmConfig
from foreloom.models.causal_lm.generate import TextGenerator
from foreloom.models.causal_lm.model import CausalLm
from foreloom.models.common.count import ParameterGroup, count_parameters
from foreloom.models.common.lora import LoraHooks
from foreloom.models.family import ExpertHooks, ModelFamily


def data() -> type[DataSection]:
    """Text. Imported when it is asked for: whoever loads a model to generate needs none of it."""
    from foreloom.data.text.section import TextData

    return TextData


def data_for(config: CausalLmConfig, text: Any) -> Any:
    """The data section with the tokenizer of the pretrained model, where it names none.

    ValueError where rows are longer than the model can read.
    """
    limit = folder.longest(config)
    if limit is not None and text.max_seq_length > limit:
        raise ValueError(
            f"data.max_seq_length is {text.max_seq_length:,} and the model reads at most {limit:,} tokens "
            "(max_position_embeddings); lower it."
        )
    if text.tokenizer is None and config.pretrained is not None:
        return dataclasses.replace(text, tokenizer=config.pretrained)
    return text


def build(config: CausalLmConfig, text: Any) -> CausalLm:
    """A module for rows of the data section's tokenizer and packing."""
    return folder.build(config, text.its_tokenizer, has_borders=text.packing == "documents")


def batch(module: nn.Module, tokens: Any, device: torch.device) -> Mapping[str, Any]:
    """Rows as tensors. Flash attention is told of documents' borders by the positions of one long row."""
    assert isinstance(module, CausalLm)
    arrays = {"input_ids": tokens.token_RT, "labels": tokens.target_RT}
    if tokens.position_RT is not None:
        arrays["position_ids"] = tokens.position_RT
        if module.lm.config._attn_implementation == "flash_attention_2":
            arrays = {name: values.reshape(1, -1) for name, values in arrays.items()}
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    tensors["num_bytes"] = torch.tensor(float(tokens.num_bytes_R.sum()), dtype=torch.float32)
    if device.type == "cuda":
        tensors = {name: value.pin_memory() for name, value in tensors.items()}
    return {name: value.to(device, non_blocking=True) for name, value in tensors.items()}


def figures(module: nn.Module, tally: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Perplexity, e to the mean loss of a token; and the loss in bits per byte of text, which models with other
    tokenizers share."""
    loss, count = tally["token_loss"]
    if not count:
        return {}
    named = {"perplexity": float(np.exp(loss / count))}
    if "text_bytes" in tally and (num_bytes := float(tally["text_bytes"][0])):
        named["bits_per_byte"] = float(loss) / math.log(2) / num_bytes
    return named


def continuations(module: nn.Module, validation: Any) -> list[tuple[str, str]]:
    """The likeliest ones of the recipe's prompts."""
    its = TextGenerator(module).generate(validation.prompts, max_new_tokens=validation.prompt_tokens, temperature=0)
    return list(zip(validation.prompts, its, strict=True))


_GROUPS = {
    r"embed|wte|wpe": "embedding",
    r"lm_head|embed_out": "head",
    r"attn|attention": "attention",
    r"norm|ln_": "norms",
    r"expert": "experts",
    r"mlp|feed_forward|fc": "feed-forward",
    r"": "others",
}


def parameter_groups(module: nn.Module) -> tuple[ParameterGroup, ...]:
    """What its parameters are for, told by the names that transformers gives them."""
    return count_parameters(module, _GROUPS)


def flops_per_row(module: nn.Module, text: Any) -> float:
    """Forward and backward FLOPs of one row of T tokens: 6 T for each weight of a matrix product, and 6 L T w A for
    attention over the w tokens before on average (T / 2, fewer in layers of a sliding window), L layers whose heads are
    A wide together."""
    assert isinstance(module, CausalLm)
    config, length = module.lm.config.get_text_config(), text.max_seq_length
    table = module.lm.get_input_embeddings().weight
    is_tied = module.lm.get_output_embeddings().weight is table
    weights = sum(p.numel() for p in module.parameters() if p.ndim > 1 and (p is not table or is_tied))
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    window = getattr(config, "sliding_window", None) or length
    seen = sum(min(window, length / 2) if kind == "sliding_attention" else length / 2 for kind in kinds)
    return 6.0 * length * weights + 12.0 * length * seen * width * config.num_attention_heads


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """Tokens, of which another tokenizer has others."""
    assert isinstance(module, CausalLm)
    return type(module.tokenizer).__name__, len(module.tokenizer)


FAMILY = ModelFamily(
    name="causal_lm",
    config=CausalLmConfig,
    data=data,
    data_for=data_for,
    build=build,
    initialize=folder.initialize,
    batch=batch,
    sharding=Sharding(
        blocks=("lm.model.layers.*", "lm.transformer.h.*", "lm.gpt_neox.layers.*", "lm.model.decoder.layers.*")
    ),
    recognises=folder.recognises,
    load=folder.load,
    save=folder.save,
    generator=TextGenerator,
    continuations=continuations,
    flops_per_row=flops_per_row,
    parts=parameter_groups,
    loss_units=loss_units,
    experts=ExpertHooks(figures=figures),
    lora=LoraHooks(
        ("self_attn.*_proj", "mlp.*_proj"),
        published_names=lambda tensors: {name.removeprefix(folder.PREFIX): x for name, x in tensors.items()},
    ),
)
