"""What a Chronos-T5 checkpoint's config.json says, read and written without losing a key."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.models.chronos_t5 import gpt2_config
from foreloom.models.common.t5.shape import SHAPE_FIELDS, T5Shape

logger = logging.getLogger(__name__)

PIPELINE_CLASS = "ChronosPipeline"
MOE_PIPELINE_CLASS = "ChronosMoEPipeline"
"""Written for a mixture of experts, so that chronos-forecasting, which has none, refuses the folder instead of
forecasting without the experts."""
TOKENIZER_CLASS = "MeanScaleUniformBins"

_TOKENIZER = ("n_tokens", "n_special_tokens", "pad_token_id", "eos_token_id", "use_eos_token")
_SAMPLING = ("num_samples", "temperature", "top_k", "top_p")
_MOE = ("num_experts", "num_active_experts", "router_hidden_dim", "load_balancing_weight", "router_choice")
_NESTED = ("model_type", "context_length", "prediction_length", *_TOKENIZER, *_SAMPLING)
_LIMITS = ("low_limit", "high_limit")
_LARGEST_LIMIT = 100.0
"""Limits beyond this look like raw values."""


@dataclass(frozen=True, kw_only=True)
class Architecture(T5Shape):
    """Everything that shapes a Chronos-T5, under the names of its config.json. Defaults are the reference's."""

    context_length: int = 512
    """Most context steps the model looks at."""
    prediction_length: int = 64
    """Steps forecast in one go; longer horizons are forecast part by part."""
    model_type: Literal["seq2seq", "causal"] = "seq2seq"
    n_tokens: int = 4096
    """Size of the vocabulary: special tokens and bins."""
    n_special_tokens: int = 2
    pad_token_id: int = 0
    eos_token_id: int = 1
    use_eos_token: bool = True
    low_limit: float = -15.0
    """Centre of the lowest bin, in units of a context's mean absolute value."""
    high_limit: float = 15.0
    num_samples: int = 20
    temperature: float = 1.0
    top_k: int = 50
    """0: all tokens."""
    top_p: float = 1.0
    scale_decoder_outputs: bool = True
    """Does the decoder's output stand times D^-1/2 before the head, as T5 1.0 has it?"""
    use_moe: bool = False
    num_experts: int = 8
    num_active_experts: int = 2
    router_hidden_dim: int = 256
    load_balancing_weight: float = 0.01
    router_choice: Literal["standardized", "biased", "probability"] = "standardized"
    """What a series' experts are chosen by; see `experts.SampleExperts`."""
    published: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The config.json this came from, for the keys that mean nothing here but must survive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low_limit >= self.high_limit:
            raise ValueError(f"low_limit {self.low_limit:g} is not below high_limit {self.high_limit:g}.")
        if max(-self.low_limit, self.high_limit) > _LARGEST_LIMIT:
            logger.warning(
                "limits %g to %g: they are in units of each context's mean absolute value, not of the data; Chronos "
                "has -15 to 15. With limits this wide most values share a few bins.",
                self.low_limit,
                self.high_limit,
            )
        if self.n_tokens < self.n_special_tokens + 3:
            raise ValueError(
                f"n_tokens {self.n_tokens} leaves {self.n_tokens - self.n_special_tokens - 1} bins beside "
                f"{self.n_special_tokens} special tokens; two are the least."
            )
        if self.use_moe and not 1 <= self.num_active_experts <= self.num_experts:
            raise ValueError(
                f"num_active_experts is {self.num_active_experts} and num_experts {self.num_experts}; a series can go "
                f"to 1 to {self.num_experts} of them."
            )
        if self.use_moe and self.model_type == "causal":
            raise ValueError(
                "use_moe with model_type: causal: experts are chosen by the whole context, which a causal model may "
                "not see while it learns from the context itself; use model_type: seq2seq."
            )

    @property
    def num_sequence_tokens(self) -> int:
        """Tokens of context, horizon and end marker together."""
        return self.context_length + self.prediction_length + 1

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Architecture:
        """Read a config.json; ValueError names the key that is missing or that foreloom cannot honour."""
        nested = config.get("chronos_config")
        if not isinstance(nested, Mapping) or "tokenizer_class" not in nested:
            raise ValueError("config.json has no chronos_config with a tokenizer_class: this is not a Chronos-T5.")
        if nested["tokenizer_class"] != TOKENIZER_CLASS:
            raise ValueError(
                f"chronos_config.tokenizer_class is {nested['tokenizer_class']!r}; foreloom has {TOKENIZER_CLASS}."
            )
        for key in ("n_tokens", "context_length", "prediction_length"):
            if key not in nested:
                raise ValueError(f"config.json lacks chronos_config.{key}.")
        if config.get("vocab_size", nested["n_tokens"]) != nested["n_tokens"]:
            raise ValueError(
                f"the tokenizer does not match the checkpoint: chronos_config.n_tokens is {nested['n_tokens']}, "
                f"vocab_size {config['vocab_size']}."
            )
        known = {key: nested[key] for key in _NESTED if nested.get(key) is not None}
        known |= {key: nested[key] for key in ("use_moe", *_MOE) if key in nested}
        known |= {key: value for key, value in (nested.get("tokenizer_kwargs") or {}).items() if key in _LIMITS}
        if nested.get("model_type") == "causal":
            known |= gpt2_config.shape_of(config)
        else:
            known |= {key: config[key] for key in SHAPE_FIELDS if config.get(key) is not None}
            is_tied = config.get("tie_word_embeddings") is not False
            known["scale_decoder_outputs"] = config.get("scale_decoder_outputs", is_tied)
        architecture, wrong = validate(cls, known, Located({}), "")
        if wrong:
            raise ValueError(f"config.json: {wrong[0].removeprefix(': ')}")
        return dataclasses.replace(architecture, published=config)

    def to_published(self, dtype: str) -> dict[str, Any]:
        """The config.json that chronos-forecasting loads, with every key of the one this came from."""
        dtype_keys = [key for key in ("dtype", "torch_dtype") if key in self.published] or ["dtype"]
        config = self._gpt2_config() if self.model_type == "causal" else self._t5_config()
        config |= {"vocab_size": self.n_tokens} | dict.fromkeys(dtype_keys, dtype)
        if self.use_moe:
            config |= {"architectures": ["ChronosMoEModel"], "chronos_pipeline_class": MOE_PIPELINE_CLASS}
        config["chronos_config"] = {
            **self.published.get("chronos_config", {}),
            **{key: getattr(self, key) for key in _NESTED},
            "tokenizer_class": TOKENIZER_CLASS,
            "tokenizer_kwargs": {key: getattr(self, key) for key in _LIMITS},
            **({key: getattr(self, key) for key in ("use_moe", *_MOE)} if self.use_moe else {}),
        }
        return dict(sorted(config.items()))

    def _gpt2_config(self) -> dict[str, Any]:
        return gpt2_config.to_published(vars(self), self.published, self.num_sequence_tokens)

    def _t5_config(self) -> dict[str, Any]:
        activation = self.feed_forward_proj.rpartition("-")[2]
        is_gated = self.feed_forward_proj.startswith("gated")
        return {
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "is_encoder_decoder": True,
            "decoder_start_token_id": self.pad_token_id,
            "dense_act_fn": "gelu_new" if is_gated else activation,
            "is_gated_act": is_gated,
            "pad_token_id": self.pad_token_id,
            "eos_token_id": self.eos_token_id,
            **self.published,
            **{key: getattr(self, key) for key in SHAPE_FIELDS},
            "scale_decoder_outputs": self.scale_decoder_outputs,
            # transformers 5 ties always and reads from this whether to scale.
            "tie_word_embeddings": self.scale_decoder_outputs,
        }

    def replace(self, **changes: Any) -> Architecture:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def architecture_of_module(module: nn.Module) -> Architecture:
    """The architecture a Chronos-T5 module was built with."""
    architecture = module.architecture
    assert isinstance(architecture, Architecture)
    return architecture


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"d_model": 256, "d_ff": 1024, "num_layers": 4, "num_heads": 4},
    "mini": {"d_model": 384, "d_ff": 1536, "num_layers": 4, "num_heads": 8},
    "small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    "large": {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
}
"""Named sizes, those of t5-efficient (Tay et al. 2021): 8M, 20M, 46M, 201M and 709M parameters with 4096 tokens."""

SIZE_DEFAULTS: dict[str, Any] = {"initializer_factor": 0.05}
"""What every named size shares, as the published configurations have it."""
