"""What shapes a Chronos-T5 and what it costs: its config.json, and the recipe's `model` section."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field
from torch import nn

from foreloom.models.common.architecture import Count, FromArchitecture, ModelSection, Positive, section_of
from foreloom.models.common.t5.shape import SHAPE_FIELDS, T5Shape
from foreloom.models.family import WindowLengths

logger = logging.getLogger(__name__)

PIPELINE_CLASS = "ChronosPipeline"
MOE_PIPELINE_CLASS = "ChronosMoEPipeline"
"""Written for a mixture of experts, so that chronos-forecasting, which has none, refuses the folder instead of
forecasting without the experts."""
TOKENIZER_CLASS = "MeanScaleUniformBins"

DEFAULT_BALANCE_RATE = 0.01
"""Ten times that of Wang et al. 2024, whose batches hold a thousand times as many choices: series, not tokens."""

_TOKENIZER = ("n_tokens", "n_special_tokens", "pad_token_id", "eos_token_id", "use_eos_token")
_SAMPLING = ("num_samples", "temperature", "top_k", "top_p")
_MOE = ("num_experts", "num_active_experts", "router_hidden_dim", "router_choice", "load_balancing_weight")
_NESTED = ("model_type", "context_length", "prediction_length", *_TOKENIZER, *_SAMPLING)
_LIMITS = ("low_limit", "high_limit")
_LARGEST_LIMIT = 100.0
"""Limits beyond this look like raw values."""

_GPT2_NAMES = {"n_embd": "d_model", "n_layer": "num_layers", "n_head": "num_heads", "resid_pdrop": "dropout_rate",
          "layer_norm_epsilon": "layer_norm_epsilon", "initializer_range": "initializer_factor"}  # fmt: skip
"""GPT-2's key -> the field. `initializer_factor` is the standard deviation here, not a factor."""
_GPT2_EXPECTED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
"""What the causal decoder does; a checkpoint that says otherwise is another model."""


@dataclass(frozen=True, kw_only=True)
class Architecture(T5Shape):
    """Everything that shapes a Chronos-T5, under the names of its config.json. Defaults are the reference's."""

    model_type: Literal["seq2seq", "causal"] = "seq2seq"
    """Of a new model: seq2seq, T5 as published; or causal, a decoder as GPT-2 that reads context and horizon as one
    sequence."""
    context_length: Count = 512
    """Most context steps the model looks at; that of the data by default."""
    prediction_length: Count = 64
    """Steps the model forecasts at once; that of the data by default."""
    n_tokens: Count = 4096
    """Size of the vocabulary: two special tokens, the rest bins."""
    n_special_tokens: Count = 2
    pad_token_id: Annotated[int, Field(ge=0)] = 0
    eos_token_id: Annotated[int, Field(ge=0)] = 1
    low_limit: float = -15.0
    """Centre of the lowest bin, in units of each context's mean absolute value (not of the data)."""
    high_limit: float = 15.0
    """Centre of the highest bin."""
    use_eos_token: bool = True
    """An end marker after context and horizon."""
    num_samples: Count = 20
    """Paths of a forecast."""
    temperature: Positive = 1.0
    """Of the drawn tokens: below 1 sharper, above 1 wider."""
    top_k: Annotated[int, Field(ge=0)] = 50
    """Only so many of the likeliest tokens are drawn; 0: any."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only the likeliest tokens of this probability together are drawn; 1: any."""
    scale_decoder_outputs: bool = True
    """Does the decoder's output stand times D^-1/2 before the head, as T5 1.0 has it?"""
    use_moe: bool = False
    """A mixture of experts in place of the head; beside pretrained, a regular checkpoint gets new ones."""
    num_experts: Count = 8
    """Experts, each with a feed-forward and a head of its own."""
    num_active_experts: Count = 2
    """Experts of a series, chosen once from its whole context."""
    router_hidden_dim: Count = 256
    """Width of the router's hidden layer."""
    router_choice: Literal["standardized", "biased", "probability"] = "standardized"
    """What experts are chosen by. standardized (default): each expert's logit against its own running mean and
    deviation, which keeps all of them in use; biased: probability plus a bias that follows the expert's load (Wang et
    al. 2024); probability: alone, which leaves it to the loss, and some experts without samples."""
    load_balancing_weight: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the balance loss, 0.01 by default; 0: none. The loss can be near 1, its value at even use, without any
    balance: watch expert_load."""

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
        if not self.low_limit <= 1 <= self.high_limit:
            logger.warning(
                "limits %g to %g leave 1 outside, the mean absolute value of every context: values of that size all "
                "share one bin. Chronos has -15 to 15.",
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
    def fewest_weights(self) -> tuple[int, int]:
        """As many tensors as blocks, and the embedding; of a mixture of experts theirs too."""
        num_blocks = self.num_layers + (0 if self.model_type == "causal" else self.num_decoder_layers)
        return num_blocks + (self.num_experts if self.use_moe else 0), self.n_tokens * self.d_model

    @property
    def num_sequence_tokens(self) -> int:
        """Tokens of context, horizon and end marker together."""
        return self.context_length + self.prediction_length + 1

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Self:
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
            known |= _shape_of_gpt2(config)
        else:
            known |= {key: config[key] for key in SHAPE_FIELDS if config.get(key) is not None}
            is_tied = config.get("tie_word_embeddings") is not False
            known["scale_decoder_outputs"] = config.get("scale_decoder_outputs", is_tied)
        return cls.checked(known, config)

    def to_published(self, dtype: str) -> dict[str, Any]:
        """The config.json that chronos-forecasting loads, with every key of the one this came from."""
        config = self._gpt2_config() if self.model_type == "causal" else self._t5_config()
        config |= {"vocab_size": self.n_tokens} | self.published_dtype(dtype)
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
        return {
            "architectures": ["GPT2LMHeadModel"],
            "bos_token_id": self.eos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            **_GPT2_EXPECTED,
            **self.published,
            **{theirs: getattr(self, ours) for theirs, ours in _GPT2_NAMES.items()},
            "attn_pdrop": self.dropout_rate,
            "embd_pdrop": self.dropout_rate,
            "n_inner": self.d_ff,
            "n_positions": self.num_sequence_tokens,
        }

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


def _shape_of_gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that the config.json of a causal model decides, by GPT-2's names; ValueError for what our decoder does
    not do."""
    for key, expected in _GPT2_EXPECTED.items():
        if config.get(key, expected) != expected:
            raise ValueError(f"config.json: {key} is {config[key]!r}; causal models here have {expected!r}.")
    known = {ours: config[theirs] for theirs, ours in _GPT2_NAMES.items() if config.get(theirs) is not None}
    for key in ("n_embd", "n_head", "n_layer"):
        if key not in config:
            raise ValueError(f"config.json lacks {key}.")
    known["d_ff"] = config.get("n_inner") or 4 * config["n_embd"]
    known["d_kv"] = config["n_embd"] // config["n_head"]
    return known


_SHARED = {"initializer_factor": 0.05}

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"d_model": 256, "d_ff": 1024, "num_layers": 4, "num_heads": 4, **_SHARED},
    "mini": {"d_model": 384, "d_ff": 1536, "num_layers": 4, "num_heads": 8, **_SHARED},
    "small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, **_SHARED},
    "base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, **_SHARED},
    "large": {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16, **_SHARED},
}
"""Named sizes, those of t5-efficient (Tay et al. 2021): 8M, 20M, 46M, 201M and 709M parameters with 4096 tokens."""

_GPT2_DEFAULTS = {"initializer_factor": 0.02, "layer_norm_epsilon": 1e-5}
EXPERT_FIELDS = (*_MOE, "balance_rate", "router_z_loss_factor")
"""What means nothing without experts."""
SEQ2SEQ_FIELDS = (
    "num_decoder_layers", "d_kv", "relative_attention_num_buckets", "relative_attention_max_distance",
    "feed_forward_proj", "use_moe",
)  # fmt: skip
"""What a causal model does not have."""


@section_of(
    Architecture,
    SIZES,
    changeable=("context_length", "prediction_length", "dropout_rate", "lookbacks", *_SAMPLING, "use_moe", *_MOE),
    from_data=("context_length", "prediction_length"),
)
class ChronosT5Config(ModelSection):
    """Chronos-T5: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["chronos_t5"] = "chronos_t5"
    """The model family."""
    size: Literal["tiny", "mini", "small", "base", "large"] | None = None
    """Named size of a new model: tiny (4 + 4 layers, 256 wide), mini (4 + 4, 384), small (6 + 6, 512), base (12 + 12,
    768), large (24 + 24, 1024)."""
    model_type: FromArchitecture
    context_length: FromArchitecture
    prediction_length: FromArchitecture
    dropout_rate: FromArchitecture
    lookbacks: FromArchitecture
    n_tokens: FromArchitecture
    low_limit: FromArchitecture
    high_limit: FromArchitecture
    use_eos_token: FromArchitecture
    num_samples: FromArchitecture
    temperature: FromArchitecture
    top_k: FromArchitecture
    top_p: FromArchitecture
    use_moe: FromArchitecture
    num_experts: FromArchitecture
    num_active_experts: FromArchitecture
    router_hidden_dim: FromArchitecture
    router_choice: FromArchitecture
    load_balancing_weight: FromArchitecture
    balance_rate: Positive | None = None
    """router_choice: biased only: by how much each update moves the bias of an expert, 0.01 by default."""
    router_z_loss_factor: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean square of the router's logsumexp, which keeps its logits small; 0: none."""
    d_model: FromArchitecture
    d_kv: FromArchitecture
    d_ff: FromArchitecture
    num_layers: Count | None = None
    """Blocks of the encoder; of the decoder where that is all there is."""
    num_decoder_layers: FromArchitecture
    num_heads: FromArchitecture
    relative_attention_num_buckets: FromArchitecture
    relative_attention_max_distance: FromArchitecture
    feed_forward_proj: Literal["relu", "gelu", "gated-gelu"] | None = None
    """Activation of the feed-forward layers."""
    layer_norm_epsilon: FromArchitecture
    initializer_factor: Positive | None = None
    """Scale of the random initial values; of a causal model their standard deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_type == "causal":
            self._refuse_without_effect(SEQ2SEQ_FIELDS, "model_type: causal")
        if self.use_moe is False or (self.use_moe is None and self.pretrained is None):
            self._refuse_without_effect(EXPERT_FIELDS, "use_moe: false; set model.use_moe=true")
        if self.balance_rate is not None and self.router_choice not in (None, "biased"):
            raise ValueError(f"balance_rate has no effect with router_choice: {self.router_choice}; remove it.")
        if self.balance_rate is not None and self.router_choice is None and self.pretrained is None:
            raise ValueError("balance_rate has no effect without router_choice: biased; set that, or remove it.")
        num_experts = self.num_experts or (Architecture.num_experts if self.size else None)
        if num_experts and (self.num_active_experts or 0) > num_experts:
            raise ValueError(
                f"num_active_experts is {self.num_active_experts} and num_experts {num_experts}: a series cannot go to "
                "more experts than there are."
            )

    def _refuse_without_effect(self, names: tuple[str, ...], why: str) -> None:
        idle = [name for name in names if getattr(self, name)]
        if idle:
            raise ValueError(f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect with {why}.")

    def new_values(self) -> dict[str, Any]:
        """As many decoder blocks as encoder blocks, unless told otherwise; of a causal model as GPT-2 has it."""
        values = super().new_values()
        if self.model_type == "causal":
            values |= {**_GPT2_DEFAULTS, **self.given()}
            return {name: value for name, value in values.items() if name not in SEQ2SEQ_FIELDS}
        return values | {"num_decoder_layers": values["num_decoder_layers"] or values["num_layers"]}

    def implied(self) -> dict[str, Any]:
        """What settings that are left out stand for, as far as the size decides it."""
        implied = super().implied()
        if not self.use_moe:
            return {name: value for name, value in implied.items() if name not in EXPERT_FIELDS}
        if self.size and self.router_choice == "biased":
            implied["balance_rate"] = self.balance_rate or DEFAULT_BALANCE_RATE
        return implied


def flops_per_row(module: nn.Module, data: WindowLengths) -> float:
    """Floating-point operations of one row, forward and backward: 3 times the forward.

    Counted as 2 a multiply-add of matrix products; the rest is not counted. With S tokens of context, T of horizon (end
    markers included), width D, heads together I, feed-forward F and a vocabulary of V: an encoder block costs
    2 * [4 S D I + 2 S^2 I + S f D F], f being 2 (3 where gated); a decoder block
    2 * [4 T D I + 2 T^2 I + 2 T D I + 2 S D I + 2 T S I + T f D F]; the head 2 T D V. With experts the head is k of
    them, each 2 T (8 D^2 + D V), and the router costs 2 (D r + r E).
    """
    context_length, horizon = data.context_length, data.prediction_length
    arch = Architecture.of(module)
    context_length = min(context_length, arch.context_length)
    if arch.model_type == "causal":
        return 3 * 2.0 * _causal_multiply_adds(arch, context_length + horizon + arch.use_eos_token)
    num_source, num_target = context_length + arch.use_eos_token, horizon + arch.use_eos_token
    width, inner = arch.d_model, arch.inner_width
    feed_forward = (3 if arch.feed_forward_proj.startswith("gated") else 2) * width * arch.d_ff
    encoder = num_source * (4 * width * inner + 2 * num_source * inner + feed_forward)
    own = num_target * (4 * width * inner + 2 * num_target * inner + feed_forward)
    across = 2 * num_target * width * inner + 2 * num_source * width * inner + 2 * num_target * num_source * inner
    head = num_target * width * arch.n_tokens
    if arch.use_moe:
        router = width * arch.router_hidden_dim + arch.router_hidden_dim * arch.num_experts
        head = arch.num_active_experts * (head + 8 * num_target * width**2) + router
    return 3 * 2.0 * (arch.num_layers * encoder + arch.num_decoder_layers * (own + across) + head)


def _causal_multiply_adds(arch: Architecture, num_tokens: int) -> int:
    """Multiply-adds of a decoder alone, attention over the full square as it is computed."""
    width = arch.d_model
    block = num_tokens * (4 * width**2 + 2 * num_tokens * width + 2 * width * arch.d_ff)
    return arch.num_layers * block + num_tokens * width * arch.n_tokens
