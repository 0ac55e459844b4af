"""The recipe's `model` section for Chronos-T5."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field

from foreloom.config.section import section
from foreloom.models.chronos_t5.architecture import SIZE_DEFAULTS, SIZES, Architecture
from foreloom.models.common.start import check_start

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
RouterChoice = Literal["standardized", "biased", "probability"]

DEFAULT_BALANCE_RATE = 0.01
"""Ten times that of Wang et al. 2024, whose batches hold a thousand times as many choices: series, not tokens."""

CAUSAL_INITIALIZER_STD = 0.02
CAUSAL_EPSILON = 1e-5
"""GPT-2's."""


@section
class ChronosT5Config:
    """Chronos-T5: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["chronos_t5"] = "chronos_t5"
    """The model family."""
    size: Literal["tiny", "mini", "small", "base", "large"] | None = None
    """Named size of a new model: tiny (4 + 4 layers, 256 wide), mini (4 + 4, 384), small (6 + 6, 512), base (12 + 12,
    768), large (24 + 24, 1024)."""
    pretrained: str | None = None
    """Folder or Hugging Face id of the model to start from, in place of a size."""
    model_type: Literal["seq2seq", "causal"] | None = None
    """Of a new model: seq2seq, T5 as published; or causal, a decoder as GPT-2 that reads context and horizon as one
    sequence."""
    context_length: Count | None = None
    """Most context steps the model looks at; that of the data by default."""
    prediction_length: Count | None = None
    """Steps the model forecasts at once; that of the data by default."""
    dropout_rate: Share | None = None
    """Share of activations dropped in training."""
    n_tokens: Count | None = None
    """Size of the vocabulary: two special tokens, the rest bins."""
    low_limit: float | None = None
    """Centre of the lowest bin, in units of each context's mean absolute value (not of the data)."""
    high_limit: float | None = None
    """Centre of the highest bin."""
    use_eos_token: bool | None = None
    """An end marker after context and horizon."""
    num_samples: Count | None = None
    """Paths of a forecast."""
    temperature: Positive | None = None
    """Of the drawn tokens: below 1 sharper, above 1 wider."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Only so many of the likeliest tokens are drawn; 0: any."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Only the likeliest tokens of this probability together are drawn; 1: any."""
    use_moe: bool | None = None
    """A mixture of experts in place of the head; beside pretrained, a regular checkpoint gets new ones."""
    num_experts: Count | None = None
    """Experts, each with a feed-forward and a head of its own."""
    num_active_experts: Count | None = None
    """Experts of a series, chosen once from its whole context."""
    router_hidden_dim: Count | None = None
    """Width of the router's hidden layer."""
    router_choice: RouterChoice | None = None
    """What experts are chosen by. standardized (default): each expert's logit against its own running mean and
    deviation, which keeps all of them in use; biased: probability plus a bias that follows the expert's load (Wang et
    al. 2024); probability: alone, which leaves it to the loss, and some experts without samples."""
    load_balancing_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Weight of the balance loss, 0.01 by default; 0: none. The loss can be near 1, its value at even use, without any
    balance: watch expert_load."""
    balance_rate: Positive | None = None
    """router_choice: biased only: by how much each update moves the bias of an expert, 0.01 by default."""
    router_z_loss_factor: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean square of the router's logsumexp, which keeps its logits small; 0: none."""
    d_model: Count | None = None
    """Width of the residual stream."""
    d_kv: Count | None = None
    """Width of one attention head."""
    d_ff: Count | None = None
    """Width of the feed-forward layers."""
    num_layers: Count | None = None
    """Blocks of the encoder; of the decoder where that is all there is."""
    num_decoder_layers: Count | None = None
    """Blocks of the decoder; as many as the encoder's by default."""
    num_heads: Count | None = None
    """Attention heads."""
    relative_attention_num_buckets: Annotated[int, Field(ge=4)] | None = None
    """Kinds of distances that attention tells apart."""
    relative_attention_max_distance: Count | None = None
    """Distance from which on all are of one kind."""
    feed_forward_proj: Literal["relu", "gelu", "gated-gelu"] | None = None
    """Activation of the feed-forward layers."""
    layer_norm_epsilon: Positive | None = None
    """Added to the mean square under the root."""
    initializer_factor: Positive | None = None
    """Scale of the random initial values; of a causal model their standard deviation."""

    def __post_init__(self) -> None:
        check_start(self, FIXED_FIELDS)
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

    def implied(self) -> dict[str, Any]:
        """What fields that are left out stand for, as far as the size decides it."""
        if self.size is None:
            return {}
        values = new_values(self)
        implied = {name: values[name] for name in ARCHITECTURE_FIELDS if name in values}
        if not self.use_moe:
            return {name: value for name, value in implied.items() if name not in EXPERT_FIELDS}
        if self.router_choice == "biased":
            implied["balance_rate"] = self.balance_rate or DEFAULT_BALANCE_RATE
        return implied


EXPERT_FIELDS = (
    "num_experts", "num_active_experts", "router_hidden_dim", "router_choice", "load_balancing_weight", "balance_rate",
    "router_z_loss_factor",
)  # fmt: skip
"""What means nothing without experts."""
SEQ2SEQ_FIELDS = (
    "num_decoder_layers", "d_kv", "relative_attention_num_buckets", "relative_attention_max_distance",
    "feed_forward_proj", "use_moe",
)  # fmt: skip
"""What a causal model does not have."""
FIXED_FIELDS = (
    "model_type", "n_tokens", "low_limit", "high_limit", "use_eos_token", "d_model", "d_kv", "d_ff", "num_layers",
    "num_decoder_layers", "num_heads", "relative_attention_num_buckets", "relative_attention_max_distance",
    "feed_forward_proj", "layer_norm_epsilon", "initializer_factor",
)  # fmt: skip
"""What a checkpoint decides."""
SAMPLING_FIELDS = ("num_samples", "temperature", "top_k", "top_p")
CHANGEABLE_FIELDS = ("context_length", "prediction_length", "dropout_rate", *SAMPLING_FIELDS)
"""What may differ from a checkpoint: no weight has its shape or meaning from these."""
ARCHITECTURE_FIELDS = (
    *CHANGEABLE_FIELDS, *FIXED_FIELDS, "use_moe", "num_experts", "num_active_experts", "router_hidden_dim",
    "router_choice", "load_balancing_weight",
)  # fmt: skip


def new_values(config: ChronosT5Config) -> dict[str, Any]:
    """The fields of a new model's `Architecture`, but the lengths where the data decide them."""
    assert config.size is not None
    own = {"context_length", "prediction_length"}
    values = {f.name: f.default for f in dataclasses.fields(Architecture) if f.name in {*ARCHITECTURE_FIELDS} - own}
    values |= SIZE_DEFAULTS | SIZES[config.size]
    given = {name: value for name in ARCHITECTURE_FIELDS if (value := getattr(config, name)) is not None}
    values |= given
    if config.model_type == "causal":
        values |= {"initializer_factor": CAUSAL_INITIALIZER_STD, "layer_norm_epsilon": CAUSAL_EPSILON, **given}
        values = {name: value for name, value in values.items() if name not in SEQ2SEQ_FIELDS}
    else:
        values["num_decoder_layers"] = given.get("num_decoder_layers", values["num_layers"])
    return values
