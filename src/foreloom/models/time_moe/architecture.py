"""What shapes a Time-MoE and what it costs: its config.json, and the recipe's `model` section."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field
from torch import nn

from foreloom.models.common.architecture import (
    Count,
    FromArchitecture,
    ModelSection,
    Positive,
    SeriesArchitecture,
    Share,
    section_of,
)
from foreloom.models.common.attention import Implementation
from foreloom.models.family import WindowLengths

MODEL_TYPE = "time_moe"
MODEL_CLASS = "TimeMoeForPrediction"

_FIXED: dict[str, Any] = {"input_size": 1, "hidden_act": "silu"}
"""Keys of which foreloom knows one value."""

_FRAME: dict[str, Any] = {
    "architectures": [MODEL_CLASS],
    "auto_map": {
        "AutoConfig": "configuration_time_moe.TimeMoeConfig",
        "AutoModelForCausalLM": f"modeling_time_moe.{MODEL_CLASS}",
    },
    "model_type": MODEL_TYPE,
    "tie_word_embeddings": False,
    "use_cache": True,
}
"""What else the official code finds in a config.json."""

Protocol = Literal["standard", "reference"]
"""standard: padding is neither a target nor a token, and rows weigh by their labels. reference: the official code's
formulas, in which zeros beyond a row's end are targets unless loss_masks are given, padding counts in the routers'
statistics unless an attention_mask is given, and micro-batches weigh the same whatever they hold. (By either, `batch`
makes less padding of windows than there: rows end with the longest, and very short ones are packed.)"""
Balance = Literal["aux_loss", "bias", "none"]

DEFAULT_BALANCE_RATE = 0.001
"""Of Wang et al. 2024."""


@dataclass(frozen=True, kw_only=True)
class Architecture(SeriesArchitecture):
    """Everything that shapes a Time-MoE model, named as in config.json. Defaults are those of the released models."""

    max_position_embeddings: Count = 4096
    """Most steps of context and forecast together; a pretrained model's may be raised."""
    attention_dropout: Share = 0.0
    """Share of attention weights dropped in training."""
    hidden_size: Count
    """Width of the residual stream."""
    intermediate_size: Count
    """Width of the shared expert, and of a token's experts together; of the feed-forward with use_dense."""
    num_hidden_layers: Count
    """Decoder layers."""
    num_attention_heads: Count
    """Attention heads."""
    num_key_value_heads: Count = 0
    """Heads of keys and values, each shared by several of queries; as many as attention heads by default."""
    num_experts: Count = 8
    """Experts of a layer."""
    num_experts_per_tok: Count = 2
    """Experts a token is sent to."""
    horizon_lengths: tuple[Count, ...] = (1, 8, 32, 64)
    """Steps that each head forecasts at once, ascending."""
    use_dense: bool = False
    """A plain feed-forward in place of the experts."""
    rope_theta: Positive = 10000.0
    """Base of the rotary frequencies."""
    rms_norm_eps: Positive = 1e-6
    """Added to the mean square under the root."""
    initializer_range: Positive = 0.02
    """Standard deviation of the random initial weights."""
    router_aux_loss_factor: float = 0.02
    """Weight of the load balancing loss; 0: not trained for."""
    use_expert_bias: bool = False
    """The routers carry a bias that balances their load (a key of foreloom; the official code passes over it)."""

    def __post_init__(self) -> None:
        if not self.num_key_value_heads:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} over num_attention_heads {self.num_attention_heads} is the width of a "
                "head, which must be a whole, even number for rotary positions."
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads {self.num_key_value_heads} must divide num_attention_heads "
                f"{self.num_attention_heads}."
            )
        if list(self.horizon_lengths) != sorted(set(self.horizon_lengths)) or min(self.horizon_lengths, default=0) < 1:
            raise ValueError(f"horizon_lengths must ascend from at least 1, got {list(self.horizon_lengths)}.")
        if self.use_dense:
            return
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ValueError(
                f"num_experts_per_tok is {self.num_experts_per_tok} of num_experts {self.num_experts}; choose 1 to "
                f"{self.num_experts}."
            )
        if self.intermediate_size % self.num_experts_per_tok:
            raise ValueError(
                f"intermediate_size {self.intermediate_size} must be a multiple of num_experts_per_tok "
                f"{self.num_experts_per_tok}: their quotient is the width of an expert."
            )

    @property
    def fewest_weights(self) -> tuple[int, int]:
        """As many tensors as experts of all layers, and the feed-forward of one."""
        num_experts = 1 if self.use_dense else self.num_experts
        return self.num_hidden_layers * num_experts, self.hidden_size * max(self.hidden_size, self.intermediate_size)

    @property
    def head_width(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def expert_width(self) -> int:
        """Hidden width of one expert; all the experts of a token are together as wide as the shared one."""
        return self.intermediate_size // self.num_experts_per_tok

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Self:
        """Read a config.json; ValueError names the key that is missing or that foreloom cannot honour."""
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            if key not in config:
                raise ValueError(f"config.json lacks {key}.")
        for key, value in _FIXED.items():
            if config.get(key, value) != value:
                raise ValueError(f"config.json: {key} is {config[key]!r}; foreloom's Time-MoE has {value!r} only.")
        known = {key: config[key] for key in _KEYS if config.get(key) is not None}
        if isinstance(known.get("horizon_lengths"), int):
            known["horizon_lengths"] = [known["horizon_lengths"]]
        if not config.get("apply_aux_loss", True) and not config.get("use_dense", False):
            known["router_aux_loss_factor"] = 0.0
        return cls.checked(known, config)

    def to_published(self, dtype: str) -> dict[str, Any]:
        """The config.json that the official code accepts, with every key of the one this came from."""
        own = {key: getattr(self, key) for key in _KEYS if key != "use_expert_bias" or self.use_expert_bias}
        own["horizon_lengths"] = list(self.horizon_lengths)
        # The official code wants exactly one of the two; a factor of 0 says that the loss is not used.
        own["apply_aux_loss"] = not self.use_dense
        config = _FRAME | _FIXED | dict(self.published)
        config |= {key: value for key, value in own.items() if key not in config or config[key] != value}
        return dict(sorted((config | self.published_dtype(dtype, "torch_dtype")).items()))


_KEYS = tuple(f.name for f in dataclasses.fields(Architecture) if f.name not in ("published", "lookbacks"))

SIZES: dict[str, dict[str, Any]] = {
    "test": {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 128,
             "num_experts": 4},
    "50m": {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 384, "intermediate_size": 1536},
    "200m": {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768, "intermediate_size": 3072},
    "ultra": {"num_hidden_layers": 36, "num_attention_heads": 16, "hidden_size": 1024, "intermediate_size": 4096},
}  # fmt: skip
"""Named sizes; 50m and 200m are those of Maple728/TimeMoE-50M and -200M, ultra that of the paper (never released)."""

ROUTER_FIELDS = (
    "num_experts", "num_experts_per_tok", "balance", "router_aux_loss_factor", "balance_rate", "router_z_loss_factor",
)  # fmt: skip
"""What means nothing without experts."""


@section_of(
    Architecture,
    SIZES,
    changeable=("max_position_embeddings", "attention_dropout", "router_aux_loss_factor", "lookbacks"),
)
class TimeMoeConfig(ModelSection):
    """Time-MoE: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["time_moe"] = "time_moe"
    """The model family."""
    size: Literal["test", "50m", "200m", "ultra"] | None = None
    """Named size of a new model: test (2 layers, 64 wide, 4 experts), 50m (12, 384), 200m (12, 768), ultra (36, 1024);
    these three have 8 experts."""
    protocol: Protocol = "standard"
    """standard: padding is neither target nor token, rows weigh by their labels. reference: the official code's
    formulas, its mistakes included, to repeat its results."""
    attn_implementation: Implementation = "auto"
    """auto: the fastest for device and shape; eager, sdpa (torch) or flash_attention_2 (the flash-attn package; of
    batches with padded or packed rows, torch)."""
    balance: Balance | None = None
    """What keeps the experts evenly used: the published auxiliary loss, a bias on each expert that follows its load
    (loss-free, Wang et al. 2024), or nothing; unset: what the checkpoint was trained with, the loss for a new model."""
    router_aux_loss_factor: Positive | None = None
    """balance: aux_loss only: the weight of the auxiliary loss, 0.02 by default."""
    balance_rate: Positive | None = None
    """balance: bias only: by how much each update moves the bias of an expert; 0.001 by default."""
    router_z_loss_factor: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean square of the routers' logsumexp, which keeps their logits small; 0: none."""
    max_position_embeddings: FromArchitecture
    lookbacks: FromArchitecture
    attention_dropout: FromArchitecture
    hidden_size: FromArchitecture
    intermediate_size: FromArchitecture
    num_hidden_layers: FromArchitecture
    num_attention_heads: FromArchitecture
    num_key_value_heads: FromArchitecture
    num_experts: FromArchitecture
    num_experts_per_tok: FromArchitecture
    horizon_lengths: FromArchitecture
    use_dense: FromArchitecture
    rope_theta: FromArchitecture
    rms_norm_eps: FromArchitecture
    initializer_range: FromArchitecture

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_dense:
            idle = [name for name in ROUTER_FIELDS if getattr(self, name)]
            if idle:
                raise ValueError(f"{', '.join(idle)}: a model with use_dense has no experts; remove one or the other.")
        if self.router_aux_loss_factor is not None and self.balance not in (None, "aux_loss"):
            raise ValueError(f"router_aux_loss_factor has no effect with balance: {self.balance}; remove it.")
        if self.balance_rate is not None and self.balance != "bias":
            raise ValueError("balance_rate has no effect without balance: bias; set that, or remove it.")

    def new_values(self) -> dict[str, Any]:
        """As many heads of keys and values as of queries, unless told otherwise."""
        values = super().new_values()
        return values | {"num_key_value_heads": self.num_key_value_heads or values["num_attention_heads"]}

    def implied(self) -> dict[str, Any]:
        """What settings that are left out stand for, as far as the size decides it."""
        if self.size is None:
            return {}
        values = self.new_values()
        if self.use_dense:
            return {name: value for name, value in values.items() if name not in ROUTER_FIELDS}
        if self.balance == "bias":
            values |= {"balance_rate": DEFAULT_BALANCE_RATE}
        if self.balance in ("bias", "none"):
            del values["router_aux_loss_factor"]
        return values | {"balance": "aux_loss"}


def flops_per_row(module: nn.Module, data: WindowLengths) -> float:
    """Floating-point operations of one training row, forward and backward: 3 times the forward.

    Counted as 2 a multiply-add of matrix products; the rest is not counted. With T = context + horizon - 1 steps, width
    D, keys and values of width G together, shared expert I, experts F = I / k, E of them, all horizons X: a step of a
    layer costs 2 D D + 2 D G for projections, T D for attention (a step sees T / 2 others on average),
    3 k D F + 3 D I + D E + D for experts, shared expert, router and gate (3 D I in a dense model); the heads D X.
    """
    context_length, horizon = data.context_length, data.prediction_length
    arch = Architecture.of(module)
    num_steps = context_length + horizon - 1
    width, inner = arch.hidden_size, arch.intermediate_size
    projections = 2 * width * width + 2 * width * arch.num_key_value_heads * arch.head_width
    feed_forward = 3 * width * inner
    if not arch.use_dense:
        feed_forward += 3 * arch.num_experts_per_tok * width * arch.expert_width + width * arch.num_experts + width
    layer = projections + num_steps * width + feed_forward
    step = arch.num_hidden_layers * layer + width * sum(arch.horizon_lengths) + 2 * width
    return 3 * 2.0 * num_steps * step
