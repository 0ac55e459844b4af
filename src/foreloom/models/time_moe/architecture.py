"""What a Time-MoE checkpoint's config.json says, read and written without losing a key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from foreloom.config.loader import validate
from foreloom.config.located import Located

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


@dataclass(frozen=True)
class Architecture:
    """Everything that shapes a Time-MoE model, named as in config.json. Defaults are those of the released models."""

    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width of the shared expert, or of the feed-forward of a dense model."""
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = 0
    """Heads of keys and values, each shared by several of queries; 0 stands for num_attention_heads."""
    num_experts: int = 8
    num_experts_per_tok: int = 2
    """Experts a token is sent to (top-k)."""
    horizon_lengths: tuple[int, ...] = (1, 8, 32, 64)
    """Steps that each head forecasts, ascending."""
    use_dense: bool = False
    """A plain feed-forward in place of the experts."""
    max_position_embeddings: int = 4096
    """Most steps of context and forecast together."""
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""
    attention_dropout: float = 0.0
    router_aux_loss_factor: float = 0.02
    """Weight of the load balancing loss; 0: not trained for."""
    use_expert_bias: bool = False
    """The routers carry a bias that balances their load (a key of foreloom; the official code passes over it)."""
    published: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The config.json this came from, for the keys that mean nothing here but must survive."""

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
    def head_width(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def expert_width(self) -> int:
        """Hidden width of one expert; all the experts of a token are together as wide as the shared one."""
        return self.intermediate_size // self.num_experts_per_tok

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Architecture:
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
        architecture, wrong = validate(cls, known, Located({}), "")
        if wrong:
            raise ValueError(f"config.json: {wrong[0]}")
        return dataclasses.replace(architecture, published=config)

    def to_published(self, dtype: str) -> dict[str, Any]:
        """The config.json that the official code accepts, with every key of the one this came from."""
        own = {key: getattr(self, key) for key in _KEYS if key != "use_expert_bias" or self.use_expert_bias}
        own["horizon_lengths"] = list(self.horizon_lengths)
        # The official code wants exactly one of the two; a factor of 0 says that the loss is not used.
        own["apply_aux_loss"] = not self.use_dense
        config = _FRAME | _FIXED | dict(self.published)
        config |= {key: value for key, value in own.items() if key not in config or config[key] != value}
        dtype_keys = [key for key in ("dtype", "torch_dtype") if key in self.published] or ["torch_dtype"]
        return dict(sorted((config | dict.fromkeys(dtype_keys, dtype)).items()))

    def replace(self, **changes: Any) -> Architecture:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


_KEYS = tuple(f.name for f in dataclasses.fields(Architecture) if f.name != "published")


def architecture_of_module(module: nn.Module) -> Architecture:
    """The architecture a Time-MoE module has."""
    architecture = module.architecture
    assert isinstance(architecture, Architecture)
    return architecture


SIZES: dict[str, dict[str, Any]] = {
    "test": {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 128,
             "num_experts": 4},
    "50m": {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 384, "intermediate_size": 1536},
    "200m": {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768, "intermediate_size": 3072},
    "ultra": {"num_hidden_layers": 36, "num_attention_heads": 16, "hidden_size": 1024, "intermediate_size": 4096},
}  # fmt: skip
"""Named sizes; 50m and 200m are those of Maple728/TimeMoE-50M and -200M, ultra that of the paper (never released)."""
