"""Chronos-2 for the rest of foreloom: the recipe's `model` section and the family's record."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from foreloom.config.section import section
from foreloom.distributed.sharding import Sharding
from foreloom.models.chronos2 import checkpoint
from foreloom.models.chronos2.architecture import SIZE_DEFAULTS, SIZES, Architecture, architecture_of_module
from foreloom.models.chronos2.batch import batch
from foreloom.models.chronos2.flops import flops_per_row
from foreloom.models.chronos2.forecast import Chronos2Forecaster
from foreloom.models.chronos2.initialize import initialize
from foreloom.models.chronos2.model import Chronos2Model
from foreloom.models.common.dropout import set_dropout_rate
from foreloom.models.common.files import resolve_folder
from foreloom.models.common.limits import raised_limit
from foreloom.models.common.start import check_start
from foreloom.models.family import ModelFamily
from foreloom.objectives.quantile import Reduction

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


@section
class Chronos2Config:
    """Chronos-2: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["chronos2"] = "chronos2"
    """The model family."""
    size: Literal["test", "small", "base"] | None = None
    """Named size of a new model: test (2 layers, 256 wide), small (6, 512), base (12, 768)."""
    pretrained: str | None = None
    """Folder or Hugging Face id of the model to start from, in place of a size."""
    context_length: Count | None = None
    """Most context steps the model looks at; that of the data by default."""
    max_output_patches: Count | None = None
    """Most patches of one forward; as many as the data's horizon needs by default."""
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of activations dropped in training."""
    reduction: Reduction = "tokens"
    """How the loss is averaged: over observed target steps ("tokens"), or as chronos-forecasting does ("reference")."""
    d_model: Count | None = None
    """Width of the residual stream."""
    d_kv: Count | None = None
    """Width of one attention head."""
    d_ff: Count | None = None
    """Width of the feed-forward layers."""
    num_layers: Count | None = None
    """Encoder blocks."""
    num_heads: Count | None = None
    """Attention heads."""
    input_patch_size: Count | None = None
    """Steps of a patch."""
    quantiles: tuple[float, ...] | None = None
    """Levels the model forecasts, ascending."""
    use_reg_token: bool | None = None
    """A register token between context and future."""
    use_arcsinh: bool | None = None
    """Tame outliers by an arcsinh after standardising."""
    time_encoding_scale: Count | None = None
    """Steps that the time channel calls 1; fixed for the life of a model, so choose that of the longest stage."""
    feed_forward_proj: Literal["relu", "gelu"] | None = None
    """Activation of the feed-forward layers."""
    layer_norm_epsilon: Positive | None = None
    """Added to the mean square under the root."""
    initializer_factor: Positive | None = None
    """Scale of the random initial values."""
    rope_theta: Positive | None = None
    """Base of the rotary frequencies."""

    def __post_init__(self) -> None:
        check_start(self, [name for name in ARCHITECTURE_FIELDS if name not in CHANGEABLE_FIELDS])

    def implied(self) -> dict[str, Any]:
        """What fields that are left out stand for, as far as the size decides it."""
        if self.size is None:
            return {}
        limits = ("context_length", "max_output_patches", "time_encoding_scale")  # these follow the data
        reference = {f.name: f.default for f in dataclasses.fields(Architecture) if f.name in ARCHITECTURE_FIELDS}
        known = {name: value for name, value in reference.items() if name not in limits}
        return known | SIZE_DEFAULTS | SIZES[self.size]


CHANGEABLE_FIELDS = ("context_length", "max_output_patches", "dropout_rate")
"""What may differ from a checkpoint: no weight has its shape or meaning from these."""

ARCHITECTURE_FIELDS = (
    *CHANGEABLE_FIELDS, "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "input_patch_size", "quantiles",
    "use_reg_token", "use_arcsinh", "time_encoding_scale", "feed_forward_proj", "layer_norm_epsilon",
    "initializer_factor", "rope_theta",
)  # fmt: skip


def build(config: Chronos2Config, *, context_length: int, prediction_length: int) -> Chronos2Model:
    """A new model without values, or a pretrained one whose limits are raised to the data's lengths (in steps)."""
    if config.pretrained is not None:
        model = checkpoint.load(resolve_folder(config.pretrained))
        adapt(model, config, context_length, prediction_length)
    else:
        model = checkpoint.build_empty(architecture_of(config, context_length, prediction_length))
    model.reduction = config.reduction
    return model


def architecture_of(config: Chronos2Config, context_length: int, prediction_length: int) -> Architecture:
    """The architecture of a new model: the size's, with the fields that are set in the recipe."""
    assert config.size is not None
    values: dict[str, Any] = SIZE_DEFAULTS | SIZES[config.size]
    values |= {name: value for name in ARCHITECTURE_FIELDS if (value := getattr(config, name)) is not None}
    values.setdefault("context_length", context_length)
    num_patches = -(-prediction_length // values["input_patch_size"])
    values.setdefault("max_output_patches", num_patches)
    for name, needed in (("context_length", context_length), ("max_output_patches", num_patches)):
        if values[name] < needed:
            raise ValueError(
                f"model.{name} is {values[name]} and the data's windows need {needed}; raise it or leave it out."
            )
    return Architecture(**values)


def adapt(model: Chronos2Model, config: Chronos2Config, context_length: int, prediction_length: int) -> None:
    """Raise a pretrained model's limits, never lower them, and log each change. The time scale stays as it is."""
    arch = model.architecture
    num_patches = -(-prediction_length // arch.input_patch_size)
    limits = {
        "context_length": raised_limit("context_length", arch.context_length, context_length, config.context_length),
        "max_output_patches": raised_limit(
            "max_output_patches", arch.max_output_patches, num_patches, config.max_output_patches
        ),
    }
    dropout_rate = arch.dropout_rate if config.dropout_rate is None else config.dropout_rate
    model.architecture = arch.replace(**limits, dropout_rate=dropout_rate)
    set_dropout_rate(model, dropout_rate)


def forecaster(module: nn.Module) -> Chronos2Forecaster:
    """A forecaster around a module, which may be in training and wrapped."""
    return Chronos2Forecaster(module)


def loss_units(module: nn.Module) -> tuple[Any, ...]:
    """Levels, of which the loss is a sum, what it is averaged over, and whether an arcsinh tames the target."""
    arch = architecture_of_module(module)
    return arch.quantiles, module.reduction, arch.use_arcsinh


FAMILY = ModelFamily(
    name="chronos2",
    config=Chronos2Config,
    build=lambda section, data: build(
        section, context_length=data.context_length, prediction_length=data.prediction_length
    ),
    initialize=initialize,
    batch=lambda module, windows, device: batch(windows, device),
    sharding=Sharding(blocks=("encoder.block.[0-9]", "encoder.block.[0-9][0-9]")),
    recognises=checkpoint.recognises,
    load=checkpoint.load,
    save=checkpoint.save,
    forecaster=forecaster,
    flops_per_row=lambda module, data: flops_per_row(module, data.context_length, data.prediction_length),
    loss_units=loss_units,
)
