"""Causal language models for the rest of foreloom: how one is built, fed, counted and asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import nn

from foreloom.distributed.sharding import Sharding
from foreloom.models.causal_lm import folder
from foreloom.models.causal_lm.config import CausalLmConfig
from foreloom.models.causal_lm.generate import TextGenerator
from foreloom.models.causal_lm.model import CausalLm
from foreloom.models.common.count import ParameterGroup, count_parameters, flops_of_row, with_ends
from foreloom.models.common.lora import LoraHooks
from foreloom.models.common.text import continuations, loss_units, text_batch, text_data, text_for_attention
from foreloom.models.common.text import figures as text_figures
from foreloom.models.family import ExpertHooks, ModelFamily
from foreloom.objectives.router import load_figures


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
    return text_for_attention(config, text)


def build(config: CausalLmConfig, text: Any) -> CausalLm:
    """A module for rows of the data section's tokenizer and packing."""
    return folder.build(config, text.its_tokenizer, has_borders=text.packing == "documents")


def batch(module: nn.Module, tokens: Any, device: torch.device) -> Mapping[str, Any]:
    """Rows as tensors. Flash attention is told of documents' borders by the positions of one long row."""
    assert isinstance(module, CausalLm)
    if tokens.position_RT is not None and not module.keeps_borders:
        raise ValueError(
            f"documents that share a row see one another in {type(module.lm).__name__}, which cannot be scored so."
        )
    tensors = text_batch(tokens, device)
    if tokens.position_RT is not None and module.lm.config._attn_implementation == "flash_attention_2":
        rows = ("input_ids", "labels", "position_ids")
        tensors |= {name: tensors[name].reshape(1, -1) for name in rows}
    if module.balance_weight:
        is_text_RT = np.arange(tokens.token_RT.shape[1]) < tokens.length_R[:, None]
        tensors["is_text"] = torch.from_numpy(is_text_RT).to(device)
    return tensors


def needs_survey(module: nn.Module) -> bool:
    """The balance of experts is one of the global batch."""
    assert isinstance(module, CausalLm)
    return module.balance_weight > 0


def figures(module: nn.Module, tally: Mapping[str, np.ndarray]) -> dict[str, float]:
    """See `text.figures`; with experts `aux_loss`, before its weight, `aux_excess`, how far it is above its value at
    even use, the experts of a token, and how evenly they are used."""
    assert isinstance(module, CausalLm)
    named = text_figures(module, tally)
    if named and "expert_load" in tally:
        loss, count = tally["aux_loss"]
        mean, top_k = float(loss / count), module.lm.config.get_text_config().num_experts_per_tok
        named |= {"aux_loss": mean, "aux_excess": mean - top_k, **load_figures(tally["expert_load"])}
    return named


_GROUPS = {
    r"embed|wte|wpe": "embedding",
    r"lm_head|embed_out": "head",
    r"attn|attention": "attention",
    r"norm|ln_": "norms",
    r"\.experts\.": "experts",
    r"\.(gate|router)\.": "router",
    r"mlp|feed_forward|fc": "feed-forward",
    r"": "others",
}


def parameter_groups(module: nn.Module) -> tuple[ParameterGroup, ...]:
    """What its parameters are for, told by the names that transformers gives them. A token runs through K of E
    experts."""
    return count_parameters(module, _GROUPS, {"router": Fraction(1), "experts": _active_share(module)})


def _active_share(module: nn.Module) -> Fraction:
    """K / E; 1 without experts."""
    assert isinstance(module, CausalLm)
    config = module.lm.config.get_text_config()
    stacks = [p for name, p in module.named_parameters() if ".experts." in name and p.ndim == 3]
    return Fraction(config.num_experts_per_tok, len(stacks[0])) if stacks else Fraction(1)


def flops_per_row(module: nn.Module, text: Any) -> float:
    """See `count.flops_of_row`: a token attends to T / 2 tokens before on average, fewer in layers of a sliding
    window, over the heads' width together, and runs through K of E experts."""
    assert isinstance(module, CausalLm)
    config, length = module.lm.config.get_text_config(), text.max_seq_length
    table = module.lm.get_input_embeddings().weight
    is_tied = module.lm.get_output_embeddings().weight is table
    positions = [p for name, p in module.named_parameters() if re.search(r"wpe|embed_positions", name)]
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    window = getattr(config, "sliding_window", None) or length
    seen = sum(min(window, length / 2) if kind == "sliding_attention" else length / 2 for kind in kinds)
    lookups = positions if is_tied else [table, *positions]
    idle = sum(p.numel() for name, p in module.named_parameters() if ".experts." in name) * (1 - _active_share(module))
    attended = seen * width * config.num_attention_heads
    return flops_of_row(module, length, lookups=lookups, attended=attended) - 6.0 * length * float(idle)


FAMILY = ModelFamily(
    name="causal_lm",
    config=CausalLmConfig,
    data=text_data,
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
    continuations=continuations(TextGenerator),
    flops_per_row=flops_per_row,
    parts=parameter_groups,
    kinds=with_ends(outputs=("lm_head", "embed_out", "gate", "router")),
    loss_units=loss_units,
    experts=ExpertHooks(figures=figures, loads=("expert_load",), needs_survey=needs_survey),
    lora=LoraHooks(
        ("self_attn.*_proj", "mlp.*_proj"),
        published_names=lambda tensors: {name.removeprefix(folder.PREFIX): x for name, x in tensors.items()},
    ),
)
