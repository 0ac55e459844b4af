"""Random initial values of T5, as transformers draws them (`T5PreTrainedModel._init_weights`)."""

from __future__ import annotations

from torch import Tensor, nn

from foreloom.models.common.initialize import normal_by_name
from foreloom.models.common.t5.shape import T5Shape


def initialize_t5(name: str, parameter: Tensor, shape: T5Shape, seed: int) -> None:
    """Fill one parameter of a stack, or `shared.weight`. Norm weights start at the factor, as all else does."""
    if name.endswith("layer_norm.weight"):
        nn.init.constant_(parameter, shape.initializer_factor)
    else:
        normal_by_name(parameter, name, seed, shape.initializer_factor * _relative_std(name, parameter, shape))


def _relative_std(name: str, parameter: Tensor, shape: T5Shape) -> float:
    """Standard deviation in units of the factor: 1/sqrt(fan in), q smaller by sqrt(d_kv) for unscaled scores."""
    if name == "shared.weight":
        return 1.0
    if name.endswith("relative_attention_bias.weight"):
        return shape.d_model**-0.5
    fan_in = parameter.shape[1]
    if name.endswith(".q.weight"):
        fan_in *= shape.d_kv
    return fan_in**-0.5
