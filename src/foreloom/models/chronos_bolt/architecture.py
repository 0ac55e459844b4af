"""What shapes a Chronos-Bolt and what it costs: its config.json, and the recipe's `model` section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from torch import nn

from foreloom.models.common.architecture import (
    Count,
    FromArchitecture,
    ModelSection,
    check_quantile_levels,
    section_of,
)
from foreloom.models.common.layers import ACTIVATIONS
from foreloom.models.common.t5.shape import SHAPE_FIELDS, T5Shape
from foreloom.models.family import WindowLengths
from foreloom.objectives.loss import Reduction

PIPELINE_CLASS = "ChronosBoltPipeline"
MODEL_CLASS = "ChronosBoltModelForForecasting"

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

START_TOKEN = 0
"""Row of `shared` that the decoder starts from, and ends with: it has this one token."""
REG_TOKEN = 1
"""Row of `shared` that holds the register token."""

_NESTED = ("context_length", "prediction_length", "input_patch_size", "use_reg_token")


@dataclass(frozen=True, kw_only=True)
class Architecture(T5Shape):
    """Everything that shapes a Chronos-Bolt, under the names of its config.json."""

    context_length: Count
    """Most context steps the model looks at; that of the data by default."""
    prediction_length: Count
    """Steps of the head, which gives them all at once; those of the data by default. Data with a shorter horizon train
    its first steps only."""
    input_patch_size: Count = 16
    """Steps of a patch."""
    quantiles: tuple[float, ...] = DECILES
    """Levels the model forecasts, ascending."""
    use_reg_token: bool = False
    """A register token after the patches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feed_forward_proj not in ACTIVATIONS:
            known = " or ".join(sorted(ACTIVATIONS))
            raise ValueError(f"feed_forward_proj is {self.feed_forward_proj!r}; Chronos-Bolt has {known}.")
        check_quantile_levels(self.quantiles)

    def num_patches(self, num_steps: int) -> int:
        """Patches of a context of so many steps."""
        return -(-num_steps // self.input_patch_size)

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Self:
        """Read a config.json; ValueError names the key that is missing or that foreloom cannot honour."""
        nested = config.get("chronos_config")
        if not isinstance(nested, Mapping):
            raise ValueError("config.json has no chronos_config: this is not a Chronos-Bolt checkpoint.")
        for key in ("context_length", "prediction_length", "input_patch_size", "quantiles"):
            if key not in nested:
                raise ValueError(f"config.json lacks chronos_config.{key}.")
        stride = nested.get("input_patch_stride", nested["input_patch_size"])
        if stride != nested["input_patch_size"]:
            raise ValueError(
                f"chronos_config.input_patch_stride is {stride} and input_patch_size is {nested['input_patch_size']}; "
                "where patches overlap, a forecast depends on how far its row is padded, so only equal values will do."
            )
        if config.get("decoder_start_token_id", START_TOKEN) != START_TOKEN:
            raise ValueError(
                f"decoder_start_token_id is {config['decoder_start_token_id']}; the decoder of a Chronos-Bolt starts "
                f"from token {START_TOKEN}."
            )
        known = {key: config[key] for key in SHAPE_FIELDS if config.get(key) is not None}
        known |= {key: nested[key] for key in (*_NESTED, "quantiles") if key in nested}
        return cls.checked(known, config)

    def to_published(self, dtype: str) -> dict[str, Any]:
        """The config.json that chronos-forecasting loads, with every key of the one this came from."""
        config: dict[str, Any] = {
            "architectures": [MODEL_CLASS],
            "chronos_pipeline_class": PIPELINE_CLASS,
            "model_type": "t5",
            "is_encoder_decoder": True,
            "decoder_start_token_id": START_TOKEN,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "dense_act_fn": self.feed_forward_proj,
            "is_gated_act": False,
            "vocab_size": 1 + self.use_reg_token,
        }
        if self.use_reg_token:
            config["reg_token_id"] = REG_TOKEN
        config |= self.published
        config |= {key: getattr(self, key) for key in SHAPE_FIELDS} | self.published_dtype(dtype)
        config["chronos_config"] = {
            **self.published.get("chronos_config", {}),
            **{key: getattr(self, key) for key in _NESTED},
            "input_patch_stride": self.input_patch_size,
            "quantiles": list(self.quantiles),
        }
        return dict(sorted(config.items()))


_SHARED = {"use_reg_token": True, "initializer_factor": 0.05}

SIZES: dict[str, dict[str, Any]] = {
    "test": {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_heads": 4, **_SHARED},
    "tiny": {"d_model": 256, "d_ff": 1024, "num_layers": 4, "num_heads": 4, **_SHARED},
    "mini": {"d_model": 384, "d_ff": 1536, "num_layers": 4, "num_heads": 8, **_SHARED},
    "small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, **_SHARED},
    "base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, **_SHARED},
}
"""Named sizes; but for `test`, those of t5-efficient (Tay et al. 2021)."""


@section_of(
    Architecture,
    SIZES,
    changeable=("context_length", "dropout_rate", "lookbacks"),
    from_data=("context_length", "prediction_length"),
)
class ChronosBoltConfig(ModelSection):
    """Chronos-Bolt: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["chronos_bolt"] = "chronos_bolt"
    """The model family."""
    size: Literal["test", "tiny", "mini", "small", "base"] | None = None
    """Named size of a new model: test (2 + 2 layers, 128 wide), tiny (4 + 4, 256), mini (4 + 4, 384), small (6 + 6,
    512), base (12 + 12, 768)."""
    context_length: FromArchitecture
    prediction_length: FromArchitecture
    dropout_rate: FromArchitecture
    lookbacks: FromArchitecture
    reduction: Reduction = "tokens"
    """How the loss is averaged: over observed target steps ("tokens"), or as chronos-forecasting does ("reference"):
    summed over the horizon, the mean over rows."""
    input_patch_size: FromArchitecture
    quantiles: FromArchitecture
    use_reg_token: FromArchitecture
    d_model: FromArchitecture
    d_kv: FromArchitecture
    d_ff: FromArchitecture
    num_layers: FromArchitecture
    num_decoder_layers: FromArchitecture
    num_heads: FromArchitecture
    relative_attention_num_buckets: FromArchitecture
    relative_attention_max_distance: Count | None = None
    """Distance, in patches, from which on all are of one kind."""
    feed_forward_proj: Literal["relu", "gelu"] | None = None
    """Activation of the feed-forward layers."""
    layer_norm_epsilon: FromArchitecture
    initializer_factor: FromArchitecture

    def new_values(self) -> dict[str, Any]:
        """As many decoder blocks as encoder blocks, unless told otherwise."""
        values = super().new_values()
        return values | {"num_decoder_layers": values["num_decoder_layers"] or values["num_layers"]}


def flops_per_row(module: nn.Module, data: WindowLengths) -> float:
    """Floating-point operations of one row, forward and backward: 3 times the forward.

    Counted as 2 a multiply-add of matrix products; the rest is not counted. The head gives its whole horizon, whatever
    is asked. With N patches of P steps, T = N + R tokens, width D, heads together I, feed-forward F and Q levels of H
    steps: an encoder block costs 2 * T (4 D I + 2 T I + 2 D F); a decoder block, which has one token, 2 * (4 D I + 2 I)
    for itself, 2 * (2 D I + 2 T D I + 2 T I) across and 2 * 2 D F; the patch embedding 2 * N (2P F + F D + 2P D), the
    head 2 * (D F + F QH + D QH).
    """
    arch = Architecture.of(module)
    num_patches = arch.num_patches(min(data.context_length, arch.context_length))
    num_tokens = num_patches + arch.use_reg_token
    width, inner, hidden = arch.d_model, arch.inner_width, arch.d_ff
    feed_forward = 2 * width * hidden
    encoder = num_tokens * (4 * width * inner + 2 * num_tokens * inner + feed_forward)
    own = 4 * width * inner + 2 * inner
    across = 2 * width * inner + 2 * num_tokens * width * inner + 2 * num_tokens * inner
    residual = lambda num_in, num_out: num_in * hidden + hidden * num_out + num_in * num_out
    patch_embedding = num_patches * residual(2 * arch.input_patch_size, width)
    head = residual(width, len(arch.quantiles) * arch.prediction_length)
    decoder = own + across + feed_forward
    return 3 * 2.0 * (patch_embedding + arch.num_layers * encoder + arch.num_decoder_layers * decoder + head)
