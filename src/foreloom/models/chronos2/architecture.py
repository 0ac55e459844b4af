"""What shapes a Chronos-2 and what it costs: its config.json, and the recipe's `model` section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from torch import nn

from foreloom.models.chronos2.naive import NUM_FORECASTS
from foreloom.models.common.architecture import (
    Count,
    FromArchitecture,
    ModelSection,
    Positive,
    SeriesArchitecture,
    Share,
    check_quantile_levels,
    section_of,
)
from foreloom.models.common.layers import ACTIVATIONS
from foreloom.models.family import WindowLengths
from foreloom.objectives.loss import Reduction

PIPELINE_CLASS = "Chronos2Pipeline"
NAIVE_PIPELINE_CLASS = "Chronos2FromNaivePipeline"
"""Of models that begin from naive forecasts: chronos-forecasting refuses it, where it would pass over their weights."""

QUANTILES_21 = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85,
                0.9, 0.95, 0.99)  # fmt: skip
QUANTILES_13 = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

_TOP_LEVEL = (
    "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "dropout_rate", "layer_norm_epsilon", "initializer_factor",
    "feed_forward_proj", "rope_theta",
)  # fmt: skip
_NESTED = ("context_length", "input_patch_size", "use_reg_token", "use_arcsinh", "max_output_patches",
           "time_encoding_scale")  # fmt: skip
_OURS = ("group_attention", "from_naive")


@dataclass(frozen=True, kw_only=True)
class Architecture(SeriesArchitecture):
    """Everything that shapes a Chronos-2 model, under the names of its config.json. Defaults are the reference's."""

    context_length: Count
    """Most context steps the model looks at; that of the data by default."""
    max_output_patches: Count = 1
    """Most patches of one forward; as many as the data's horizon needs by default."""
    dropout_rate: Share = 0.1
    """Share of activations dropped in training."""
    d_model: Count = 512
    """Width of the residual stream."""
    d_kv: Count = 64
    """Width of one attention head."""
    d_ff: Count = 2048
    """Width of the feed-forward layers."""
    num_layers: Count = 6
    """Encoder blocks."""
    num_heads: Count = 8
    """Attention heads."""
    input_patch_size: Count
    """Steps of a patch."""
    quantiles: tuple[float, ...]
    """Levels the model forecasts, ascending."""
    use_reg_token: bool = False
    """A register token between context and future."""
    group_attention: bool = True
    """Rows of a group inform each other. false: each row stands alone and covariates are passed over, as they must be
    by a model that has learned from single series; the published models have no such key."""
    from_naive: bool = False
    """The forecast begins from a learned mixture of naive ones (level, drift, season: `naive_forecasts`), to which the
    network adds: what repeats exactly is copied exactly. The published models have no such key, and
    chronos-forecasting does not load such a model."""
    use_arcsinh: bool = False
    """Tame outliers by an arcsinh after standardising."""
    time_encoding_scale: Count = 0
    """Steps that the time channel calls 1; fixed for the life of a model, so choose that of the longest stage."""
    feed_forward_proj: str = "relu"
    """Activation of the feed-forward layers."""
    layer_norm_epsilon: Positive = 1e-6
    """Added to the mean square under the root."""
    initializer_factor: Positive = 0.05
    """Scale of the random initial values."""
    rope_theta: Positive = 10000.0
    """Base of the rotary frequencies."""

    def __post_init__(self) -> None:
        if not self.time_encoding_scale:
            object.__setattr__(self, "time_encoding_scale", self.context_length)
        if self.feed_forward_proj not in ACTIVATIONS:
            known = " or ".join(sorted(ACTIVATIONS))
            raise ValueError(f"feed_forward_proj is {self.feed_forward_proj!r}; Chronos-2 has {known}.")
        check_quantile_levels(self.quantiles)
        if self.d_kv % 2:
            raise ValueError(f"d_kv is {self.d_kv}; rotary positions need an even head width.")

    @property
    def inner_width(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.d_kv

    @property
    def fewest_weights(self) -> tuple[int, int]:
        """As many tensors as blocks, and the projections of one."""
        return self.num_layers, self.d_model * (self.inner_width + self.d_ff)

    def num_patches(self, num_steps: int) -> int:
        """Patches that so many steps take."""
        return -(-num_steps // self.input_patch_size)

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Self:
        """Read a config.json; ValueError names the key that is missing or that foreloom cannot honour."""
        nested = config.get("chronos_config")
        if not isinstance(nested, Mapping):
            raise ValueError("config.json has no chronos_config: this is not a Chronos-2 checkpoint.")
        for key in ("context_length", "input_patch_size", "quantiles"):
            if key not in nested:
                raise ValueError(f"config.json lacks chronos_config.{key}.")
        patch_size = nested["input_patch_size"]
        for key in ("output_patch_size", "input_patch_stride"):
            if nested.get(key, patch_size) != patch_size:
                raise ValueError(
                    f"chronos_config.{key} is {nested[key]} and input_patch_size is {patch_size}; "
                    "only equal values have a defined time channel."
                )
        known = {key: config[key] for key in _TOP_LEVEL if key in config}
        known |= {key: nested[key] for key in (*_NESTED, *_OURS) if nested.get(key) is not None}
        return cls.checked(known | {"quantiles": nested["quantiles"]}, config)

    def to_published(self, dtype: str) -> dict[str, Any]:
        """The config.json that chronos-forecasting loads, with every key of the one this came from."""
        config: dict[str, Any] = {
            "architectures": ["Chronos2Model"],
            "chronos_pipeline_class": PIPELINE_CLASS,
            "model_type": "t5",
            "pad_token_id": 0,
            "dense_act_fn": self.feed_forward_proj,
            "is_gated_act": False,
            "vocab_size": 1 + self.use_reg_token,
        }
        if self.use_reg_token:
            config["reg_token_id"] = 1
        config |= self.published
        if self.from_naive:
            config |= {"architectures": ["Chronos2FromNaive"], "chronos_pipeline_class": NAIVE_PIPELINE_CLASS}
        config |= {key: getattr(self, key) for key in _TOP_LEVEL} | self.published_dtype(dtype)
        config["chronos_config"] = {
            "output_patch_size": self.input_patch_size,
            "input_patch_stride": self.input_patch_size,
            **self.published.get("chronos_config", {}),
            **{key: getattr(self, key) for key in _NESTED},
            **({} if self.group_attention else {"group_attention": False}),
            **({"from_naive": True} if self.from_naive else {}),
            "quantiles": list(self.quantiles),
        }
        return dict(sorted(config.items()))


_SHARED = {"input_patch_size": 16, "use_reg_token": True, "use_arcsinh": True}

SIZES: dict[str, dict[str, Any]] = {
    "test": {"num_layers": 2, "d_model": 256, "d_ff": 1024, "num_heads": 4, "quantiles": QUANTILES_21, **_SHARED},
    "small": {"num_layers": 6, "d_model": 512, "d_ff": 2048, "num_heads": 8, "quantiles": QUANTILES_13,
              "time_encoding_scale": 8192, **_SHARED},
    "base": {"num_layers": 12, "d_model": 768, "d_ff": 3072, "num_heads": 12, "quantiles": QUANTILES_21,
             "time_encoding_scale": 8192, **_SHARED},
}  # fmt: skip
"""Named sizes. The time scale of small and base is that of their last stage (context 8192) from the first step on,
because a later, longer stage must not change what the time channel means."""


@section_of(
    Architecture,
    SIZES,
    changeable=("context_length", "max_output_patches", "dropout_rate", "lookbacks"),
    from_data=("context_length", "max_output_patches", "time_encoding_scale"),
)
class Chronos2Config(ModelSection):
    """Chronos-2: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["chronos2"] = "chronos2"
    """The model family."""
    size: Literal["test", "small", "base"] | None = None
    """Named size of a new model: test (2 layers, 256 wide), small (6, 512), base (12, 768)."""
    context_length: FromArchitecture
    max_output_patches: FromArchitecture
    dropout_rate: FromArchitecture
    reduction: Reduction = "tokens"
    """How the loss is averaged: over observed target steps ("tokens"), or as chronos-forecasting does ("reference")."""
    d_model: FromArchitecture
    d_kv: FromArchitecture
    d_ff: FromArchitecture
    num_layers: FromArchitecture
    num_heads: FromArchitecture
    input_patch_size: FromArchitecture
    quantiles: FromArchitecture
    use_reg_token: FromArchitecture
    group_attention: FromArchitecture
    from_naive: FromArchitecture
    lookbacks: FromArchitecture
    use_arcsinh: FromArchitecture
    time_encoding_scale: FromArchitecture
    feed_forward_proj: Literal["relu", "gelu"] | None = None
    """Activation of the feed-forward layers."""
    layer_norm_epsilon: FromArchitecture
    initializer_factor: FromArchitecture
    rope_theta: FromArchitecture


def flops_per_row(module: nn.Module, data: WindowLengths) -> float:
    """Floating-point operations of one row that is alone in its group, forward and backward: 3 times the forward.

    Counted as 2 a multiply-add of matrix products; the rest is not counted. With N context patches, n future patches,
    T = N + R + n tokens, width D, heads together I, feed-forward F: a block costs 2 * [T (3 D I + I D) + 2 T^2 I] for
    time attention, 2 * T (D I + I D) for group attention (no q, k for a lone row) and 2 * T * 2 D F for the
    feed-forward; the last block only n tokens but for its keys and values; the patch embedding
    2 * (N + n) (3P F + F D + 3P D), the head 2 * n (D F + F Q P + D Q P), reading and weighing naive forecasts
    2 * n (K (P + 1) + 2 + K P) D.
    """
    context_length, horizon = data.context_length, data.prediction_length
    arch = Architecture.of(module)
    patch = arch.input_patch_size
    num_context, num_future = arch.num_patches(min(context_length, arch.context_length)), arch.num_patches(horizon)
    num_tokens = num_context + arch.use_reg_token + num_future
    width, inner, hidden = arch.d_model, arch.inner_width, arch.d_ff

    def block(num_queries: int) -> float:
        time = 2 * num_tokens * width * inner + 2 * num_queries * width * inner + 2 * num_queries * num_tokens * inner
        return time + 2 * num_queries * width * inner + 2 * num_queries * width * hidden

    patch_embedding = (num_context + num_future) * (3 * patch * (hidden + width) + hidden * width)
    out = len(arch.quantiles) * patch
    head = num_future * (width * hidden + hidden * out + width * out)
    if arch.from_naive:
        head += num_future * (NUM_FORECASTS * (2 * patch + 1) + 2) * width
    multiply_adds = patch_embedding + (arch.num_layers - 1) * block(num_tokens) + block(num_future) + head
    return 3 * 2.0 * multiply_adds
