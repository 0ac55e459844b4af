"""What shapes the T5 stacks of Chronos-T5 and Chronos-Bolt, under the names of their config.json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

PROJECTIONS = ("relu", "gelu", "gated-gelu")
"""Feed-forward layers by T5's names: of 1.0, an exact GELU, and of 1.1 (gated, the GELU approximated by a tanh)."""


@dataclass(frozen=True, kw_only=True)
class T5Shape:
    """Widths, depths and the rest that both stacks share. Defaults are those of transformers' T5Config."""

    d_model: int = 512
    d_kv: int = 64
    """Width of one attention head; num_heads * d_kv need not equal d_model."""
    d_ff: int = 2048
    num_layers: int = 6
    """Blocks of the encoder."""
    num_decoder_layers: int = 0
    """Blocks of the decoder; 0: as many as the encoder has."""
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"

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
    def inner_width(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.d_kv


SHAPE_FIELDS = tuple(field.name for field in dataclasses.fields(T5Shape))
"""Keys at the top level of config.json."""
