"""What shapes a decoder: its config.json, and the recipe's `model` section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from foreloom.models.common.architecture import (
    Count,
    FromArchitecture,
    ModelSection,
    OwnArchitecture,
    Positive,
    Share,
    section_of,
)
from foreloom.models.common.attention import Implementation
from foreloom.models.common.initialize import Scheme

GATED = ("glu", "swiglu")
_MATCHED_MULTIPLE = 4
"""Of a gated feed-forward's width: how near it comes to as many parameters, and to what kernels like."""


@dataclass(frozen=True, kw_only=True)
class Architecture(OwnArchitecture):
    """Everything that shapes a decoder."""

    model_class: ClassVar[str] = "ForeloomDecoder"

    vocab_size: Count
    """Words of the tokenizer."""
    max_position_embeddings: Count
    """Most tokens of a text; a pretrained model's may be raised, but where positions are learned."""
    d_model: Count
    """Width of the residual stream."""
    num_layers: Count
    """Blocks of attention and feed-forward."""
    num_heads: Count
    """Attention heads; they divide d_model."""
    d_ff: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Hidden width of a feed-forward; 0: ff_ratio times d_model."""
    ff_ratio: Positive = 4.0
    """Hidden width of a feed-forward in widths of the model, where d_ff is 0."""
    gated_width: Literal["full", "matched"] = "full"
    """Of a gated feed-forward, where d_ff is 0. full: as wide as one without a gate, with half as many parameters
    again; matched: two thirds of that, to a multiple of 4, with as many parameters."""
    activation: Literal["gelu", "relu", "silu", "glu", "swiglu"] = "gelu"
    """Of the feed-forward. glu and swiglu multiply a projection by the sigmoid, or silu, of another (Shazeer 2020)."""
    norm: Literal["layer", "rms"] = "layer"
    """layer: zero mean and unit variance (Ba et al. 2016); rms: unit mean square (Zhang & Sennrich 2019)."""
    norm_placement: Literal["pre", "post"] = "pre"
    """pre: of what a branch is given, and one of the last hidden states; post: of the stream after each branch."""
    positions: Literal["rotary", "learned", "sinusoidal"] = "rotary"
    """rotary: queries and keys turn by position (Su et al. 2021); learned: a table is added to the embedding;
    sinusoidal: waves are added to the embedding times sqrt(d_model) (Vaswani et al. 2017)."""
    rope_theta: Positive = 10000.0
    """Base of the rotary and the sinusoidal frequencies."""
    tie_embeddings: bool = True
    """The head is the embedding's table."""
    bias: bool = False
    """Projections, but the head, and layer norms have biases."""
    norm_eps: Positive = 1e-5
    """Added to the variance or the mean square under the root."""
    dropout: Share = 0.0
    """Share dropped of the embedding, the attention weights and each branch's result."""
    init: Scheme = "depth_scaled"
    """Standard deviation of a matrix. xavier: sqrt(2 / (fan_in + fan_out)), uniform; kaiming: sqrt(2 / fan_in); gpt:
    0.02; depth_scaled: as gpt, but 0.02 / sqrt(2 num_layers) where a branch ends. Tables have 0.02 by all of them."""
    attention_scale: Positive = 1.0
    """Factor of the attention's scores, beside 1 / sqrt(width of a head)."""
    embedding_scale: Positive = 1.0
    """Factor of the embedding's rows."""
    residual_scale: Positive = 1.0
    """Factor of each branch where it joins the stream."""
    logit_scale: Positive = 1.0
    """Factor of the logits."""

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads:
            fitting = [n for n in range(1, self.d_model + 1) if self.d_model % n == 0]
            nearest = sorted(sorted(fitting, key=lambda n: abs(n - self.num_heads))[:2])
            raise ValueError(
                f"num_heads {self.num_heads} do not divide d_model {self.d_model}; set num_heads to "
                f"{' or '.join(map(str, nearest))}, or d_model to a multiple of {self.num_heads}."
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(
                f"a head is {self.head_width} wide (d_model {self.d_model} / num_heads {self.num_heads}), and rotary "
                "positions turn pairs: make that even, or choose other positions."
            )
        if self.gated_width == "matched" and (self.activation not in GATED or self.d_ff):
            why = f"with activation: {self.activation}, which has no gate" if not self.d_ff else "beside d_ff"
            raise ValueError(f"gated_width has no effect {why}; remove it.")

    @property
    def fewest_weights(self) -> tuple[int, int]:
        matrices = 4 * self.d_model**2 + 2 * self.d_model * self.ff_width
        return 4 * self.num_layers, self.vocab_size * self.d_model + self.num_layers * matrices

    @property
    def head_width(self) -> int:
        return self.d_model // self.num_heads

    @property
    def ff_width(self) -> int:
        """Hidden width of a feed-forward."""
        if self.d_ff:
            return self.d_ff
        plain = self.ff_ratio * self.d_model
        if self.gated_width == "matched":
            return max(round(plain * 2 / 3 / _MATCHED_MULTIPLE), 1) * _MATCHED_MULTIPLE
        return max(round(plain), 1)


SIZES: dict[str, dict[str, Any]] = {
    "test": {"d_model": 32, "num_layers": 2, "num_heads": 4},
    "tiny": {"d_model": 128, "num_layers": 4, "num_heads": 4},
    "small": {"d_model": 768, "num_layers": 12, "num_heads": 12},
}
"""Named sizes; small has the shape of GPT-2's smallest."""


@section_of(
    Architecture,
    SIZES,
    changeable=("max_position_embeddings", "dropout"),
    from_data=("vocab_size", "max_position_embeddings"),
)
class DecoderConfig(ModelSection):
    """A decoder: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["decoder"] = "decoder"
    """The model family."""
    size: Literal["test", "tiny", "small"] | None = None
    """Named size of a new model: test (2 layers, 32 wide), tiny (4, 128), small (12, 768)."""
    attn_implementation: Implementation = "auto"
    """auto: the fastest for device and shape; eager, sdpa (torch) or flash_attention_2 (the flash-attn package; of
    documents that share rows, torch)."""
    label_smoothing: Share = 0.0
    """Share of a label's weight that all words get alike, in training."""
    d_model: FromArchitecture
    num_layers: FromArchitecture
    num_heads: FromArchitecture
    d_ff: FromArchitecture
    ff_ratio: FromArchitecture
    gated_width: FromArchitecture
    activation: FromArchitecture
    norm: FromArchitecture
    norm_placement: FromArchitecture
    positions: FromArchitecture
    rope_theta: FromArchitecture
    tie_embeddings: FromArchitecture
    bias: FromArchitecture
    norm_eps: FromArchitecture
    dropout: FromArchitecture
    init: FromArchitecture
    attention_scale: FromArchitecture
    embedding_scale: FromArchitecture
    residual_scale: FromArchitecture
    logit_scale: FromArchitecture
    max_position_embeddings: FromArchitecture

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None:  # what contradicts itself is told where the recipe is read
            of_data: dict[str, Any] = dict.fromkeys(self.from_data, 1)
            Architecture(**(of_data | self.new_values()))
