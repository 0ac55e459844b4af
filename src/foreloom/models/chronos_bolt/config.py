"""The recipe's `model` section for Chronos-Bolt."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field

from foreloom.config.section import section
from foreloom.models.chronos_bolt.architecture import SIZE_DEFAULTS, SIZES, Architecture
from foreloom.models.common.start import check_start
from foreloom.objectives.quantile import Reduction

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@section
class ChronosBoltConfig:
    """Chronos-Bolt: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["chronos_bolt"] = "chronos_bolt"
    """The model family."""
    size: Literal["test", "tiny", "mini", "small", "base"] | None = None
    """Named size of a new model: test (2 + 2 layers, 128 wide), tiny (4 + 4, 256), mini (4 + 4, 384), small (6 + 6,
    512), base (12 + 12, 768)."""
    pretrained: str | None = None
    """Folder or Hugging Face id of the model to start from, in place of a size."""
    context_length: Count | None = None
    """Most context steps the model looks at; that of the data by default."""
    prediction_length: Count | None = None
    """Steps of the head, which gives them all at once; those of the data by default. Data with a shorter horizon train
    its first steps only."""
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of activations dropped in training."""
    reduction: Reduction = "tokens"
    """How the loss is averaged: over observed target steps ("tokens"), or as chronos-forecasting does ("reference"):
    summed over the horizon, the mean over rows."""
    input_patch_size: Count | None = None
    """Steps of a patch."""
    quantiles: tuple[float, ...] | None = None
    """Levels the model forecasts, ascending."""
    use_reg_token: bool | None = None
    """A register token after the patches."""
    d_model: Count | None = None
    """Width of the residual stream."""
    d_kv: Count | None = None
    """Width of one attention head."""
    d_ff: Count | None = None
    """Width of the feed-forward layers."""
    num_layers: Count | None = None
    """Blocks of the encoder."""
    num_decoder_layers: Count | None = None
    """Blocks of the decoder; as many as the encoder's by default."""
    num_heads: Count | None = None
    """Attention heads."""
    relative_attention_num_buckets: Annotated[int, Field(ge=4)] | None = None
    """Kinds of distances that attention tells apart."""
    relative_attention_max_distance: Count | None = None
    """Distance, in patches, from which on all are of one kind."""
    feed_forward_proj: Literal["relu", "gelu"] | None = None
    """Activation of the feed-forward layers."""
    layer_norm_epsilon: Positive | None = None
    """Added to the mean square under the root."""
    initializer_factor: Positive | None = None
    """Scale of the random initial values."""

    def __post_init__(self) -> None:
        check_start(self, FIXED_FIELDS)

    def implied(self) -> dict[str, Any]:
        """What fields that are left out stand for, as far as the size decides it."""
        if self.size is None:
            return {}
        values = new_values(self)
        return {name: values[name] for name in ARCHITECTURE_FIELDS if name in values}


CHANGEABLE_FIELDS = ("context_length", "dropout_rate")
"""What may differ from a checkpoint: no weight has its shape or meaning from these."""

FIXED_FIELDS = (
    "prediction_length", "input_patch_size", "quantiles", "use_reg_token", "d_model", "d_kv",
    "d_ff", "num_layers", "num_decoder_layers", "num_heads", "relative_attention_num_buckets",
    "relative_attention_max_distance", "feed_forward_proj", "layer_norm_epsilon", "initializer_factor",
)  # fmt: skip
"""What a checkpoint decides."""

ARCHITECTURE_FIELDS = (*CHANGEABLE_FIELDS, *FIXED_FIELDS)


def new_values(config: ChronosBoltConfig) -> dict[str, Any]:
    """The fields of a new model's `Architecture`, but the lengths where the data decide them."""
    assert config.size is not None
    values = {
        f.name: f.default
        for f in dataclasses.fields(Architecture)
        if f.name in ARCHITECTURE_FIELDS and f.default is not dataclasses.MISSING
    }
    values |= SIZE_DEFAULTS | SIZES[config.size]
    values |= {name: value for name in ARCHITECTURE_FIELDS if (value := getattr(config, name)) is not None}
    values["num_decoder_layers"] = config.num_decoder_layers or values["num_layers"]
    return values
