"""The causal variant's config.json: GPT-2's names for what T5 calls otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {"n_embd": "d_model", "n_layer": "num_layers", "n_head": "num_heads", "resid_pdrop": "dropout_rate",
          "layer_norm_epsilon": "layer_norm_epsilon", "initializer_range": "initializer_factor"}  # fmt: skip
"""GPT-2's key -> the field. `initializer_factor` is the standard deviation here, not a factor."""
_EXPECTED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
"""What the decoder here does; a checkpoint that says otherwise is another model."""


def shape_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Architecture` that a GPT-2 config.json decides; ValueError for what our decoder does not do."""
    for key, expected in _EXPECTED.items():
        if config.get(key, expected) != expected:
            raise ValueError(f"config.json: {key} is {config[key]!r}; causal models here have {expected!r}.")
    known = {ours: config[theirs] for theirs, ours in _NAMES.items() if config.get(theirs) is not None}
    for key in ("n_embd", "n_head", "n_layer"):
        if key not in config:
            raise ValueError(f"config.json lacks {key}.")
    known["d_ff"] = config.get("n_inner") or 4 * config["n_embd"]
    known["d_kv"] = config["n_embd"] // config["n_head"]
    return known


def to_published(fields: Mapping[str, Any], published: Mapping[str, Any], num_positions: int) -> dict[str, Any]:
    """A config.json from which transformers builds the same model, of the fields of an `Architecture`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": fields["eos_token_id"],
        "eos_token_id": fields["eos_token_id"],
        "pad_token_id": fields["pad_token_id"],
        **_EXPECTED,
        **published,
        **{theirs: fields[ours] for theirs, ours in _NAMES.items()},
        "attn_pdrop": fields["dropout_rate"],
        "embd_pdrop": fields["dropout_rate"],
        "n_inner": fields["d_ff"],
        "n_positions": num_positions,
    }
