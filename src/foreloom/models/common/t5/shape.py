"""What shapes the T5 stacks of Chronos-T5 and Chronos-Bolt, and how their weights are named and begin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from foreloom.models.common.architecture import Count, Positive, SeriesArchitecture, Share
from foreloom.models.common.initialize import normal_by_name
from foreloom.models.common.parametrization import HeadGrowth, scaled_size

PROJECTIONS = ("relu", "gelu", "gated-gelu")
"""Feed-forward layers by T5's names: of 1.0, an exact GELU, and of 1.1 (gated, the GELU approximated by a tanh)."""


@dataclass(frozen=True, kw_only=True)
class T5Shape(SeriesArchitecture):
    """Widths, depths and the rest that both stacks share, under the names of config.json. Defaults are those of
    transformers' T5Config."""

    d_model: Count = 512
    """Width of the residual stream."""
    d_kv: Count = 64
    """Width of one attention head."""
    d_ff: Count = 2048
    """Width of the feed-forward layers."""
    num_layers: Count = 6
    """Blocks of the encoder."""
    num_decoder_layers: Count = 0
    """Blocks of the decoder; as many as the encoder's by default."""
    num_heads: Count = 8
    """Attention heads."""
    relative_attention_num_buckets: Annotated[int, Field(ge=4)] = 32
    """Kinds of distances that attention tells apart."""
    relative_attention_max_distance: Count = 128
    """Distance from which on all are of one kind."""
    dropout_rate: Share = 0.1
    """Share of activations dropped in training."""
    layer_norm_epsilon: Positive = 1e-6
    """Added to the mean square under the root."""
    initializer_factor: Positive = 1.0
    """Scale of the random initial values."""
    feed_forward_proj: str = "relu"
    """Activation of the feed-forward layers."""

    def __post_init__(self) -> None:
        if not self.num_decoder_layers:
            object.__setattr__(self, "num_decoder_layers", self.num_layers)
        if self.feed_forward_proj not in PROJECTIONS:
            raise ValueError(f"feed_forward_proj is {self.feed_forward_proj!r}; foreloom has {', '.join(PROJECTIONS)}.")
        if self.relative_attention_num_buckets < 4 or self.relative_attention_num_buckets % 2:
            raise ValueError(
                f"relative_attention_num_buckets is {self.relative_attention_num_buckets}; the encoder needs as many "
                "for what lies ahead as for what lies behind: an even number from 4 on."
            )

    @property
    def fewest_weights(self) -> tuple[int, int]:
        """As many tensors as blocks, and the projections of one."""
        return self.num_layers + self.num_decoder_layers, self.d_model * (self.inner_width + self.d_ff)

    @property
    def inner_width(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.d_kv


SHAPE_FIELDS = tuple(
    field.name for field in dataclasses.fields(T5Shape) if field.name not in ("published", "lookbacks")
)
"""Keys at the top level of config.json."""


EMBEDDING = "shared.weight"
TIED_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def without_tied_copies(
    tensors: Mapping[str, Tensor], file: Path, names: tuple[str, ...] = TIED_COPIES, embedding: str = EMBEDDING
) -> dict[str, Tensor]:
    """The tensors less the copies of the embedding that older files hold; ValueError where one differs."""
    for name in names:
        if name in tensors and embedding in tensors and not tensors[name].equal(tensors[embedding]):
            raise ValueError(
                f"{file}: {name} differs from {embedding}; foreloom and transformers 5 have models with one embedding "
                "for all that read it only."
            )
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def initialize_t5(name: str, parameter: Tensor, seed: int, *, factor: float, d_model: int, d_kv: int) -> None:
    """Fill one parameter of a stack, or `shared.weight`, as transformers does (`T5PreTrainedModel._init_weights`).

    Norm weights start at the factor, as all else does.
    """
    std = t5_std(name, parameter, factor=factor, d_model=d_model, d_kv=d_kv)
    if std is not None:
        normal_by_name(parameter, name, seed, std)
    else:
        nn.init.constant_(parameter, factor if name.endswith("layer_norm.weight") else 0.0)


def t5_std(name: str, parameter: Tensor, *, factor: float, d_model: int, d_kv: int) -> float | None:
    """Standard deviation of what `initialize_t5` draws; None of norms and biases, which begin alike everywhere."""
    if name.endswith(("layer_norm.weight", ".bias")):
        return None
    return factor * _relative_std(name, parameter, d_model, d_kv)


def drawn(stds: Mapping[str, float | None]) -> dict[str, float]:
    """Those of parameters that begin at random."""
    return {name: std for name, std in stds.items() if std is not None}


def resized_t5(section: Any, width: int, heads: HeadGrowth, *, even_heads: bool = False) -> Any:
    """A model section at another width: more heads of the same width, or wider ones, and the feed-forward with it."""
    values = section.new_values()
    ratio = width / values["d_model"]
    grown = (
        {"num_heads": scaled_size(values["num_heads"], ratio)}
        if heads == "more"
        else {"d_kv": scaled_size(values["d_kv"], ratio, 2 if even_heads else 1)}
    )
    changes = {"num_heads": values["num_heads"], "d_kv": values["d_kv"], **grown}
    return dataclasses.replace(section, d_model=width, d_ff=scaled_size(values["d_ff"], ratio), **changes)


def _relative_std(name: str, parameter: Tensor, d_model: int, d_kv: int) -> float:
    """Standard deviation in units of the factor: 1/sqrt(fan in), q smaller by sqrt(d_kv) for unscaled scores."""
    if name == "shared.weight":
        return 1.0
    if name.endswith("relative_attention_bias.weight"):
        return d_model**-0.5
    fan_in = parameter.shape[1]
    if name.endswith(".q.weight"):
        fan_in *= d_kv
    return fan_in**-0.5
