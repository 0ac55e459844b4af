"""What shapes an LSTM: its config.json, and the recipe's `model` section."""

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


@dataclass(frozen=True, kw_only=True)
class Architecture(OwnArchitecture):
    """Everything that shapes an LSTM."""

    model_class: ClassVar[str] = "ForeloomLstm"

    vocab_size: Count
    """Words of the tokenizer."""
    d_model: Count
    """Width of the embedding and of every layer's state."""
    num_layers: Count
    """Recurrent layers."""
    tie_embeddings: bool = True
    """The head is the embedding's table."""
    layer_norm: Literal["none", "input", "output", "both"] = "none"
    """Norm of what the first layer is given, of what the last one gives, or of both."""
    forget_bias: float = 1.0
    """What the bias of the forget gates begins with, in all: a layer has one bias a gate (Jozefowicz et al. 2015)."""
    logit_scale: Positive = 1.0
    """Factor of the logits."""
    input_dropout: Share = 0.0
    """Share of the embedding's dimensions dropped, the same ones at all tokens of a row (Gal & Ghahramani 2016)."""
    hidden_dropout: Share = 0.0
    """Share of a layer's outputs dropped on the way to the next layer, the same ones at all tokens of a row."""
    output_dropout: Share = 0.0
    """Share of the last layer's outputs dropped, the same ones at all tokens of a row."""
    between_dropout: Share = 0.0
    """Share of a layer's outputs dropped on the way to the next layer, other ones at each token."""
    recurrent_dropout: Share = 0.0
    """Share of a layer's own past outputs dropped, the same ones at all tokens of a row. Layers then go token by token,
    much slower than torch's kernel."""

    @property
    def fewest_weights(self) -> tuple[int, int]:
        return 3 * self.num_layers, self.vocab_size * self.d_model + self.num_layers * 8 * self.d_model**2


SIZES: dict[str, dict[str, Any]] = {
    "test": {"d_model": 32, "num_layers": 2},
    "tiny": {"d_model": 224, "num_layers": 2},
    "small": {"d_model": 1024, "num_layers": 2},
}
"""Named sizes; of bytes, tiny has about as many parameters as the decoder of that name."""
_DROPOUTS = ("input_dropout", "hidden_dropout", "output_dropout", "between_dropout", "recurrent_dropout")


@section_of(Architecture, SIZES, changeable=_DROPOUTS, from_data=("vocab_size",))
class LstmConfig(ModelSection):
    """An LSTM: a new model of a named size, or a pretrained one. A field left out is that of the size."""

    family: Literal["lstm"] = "lstm"
    """The model family."""
    size: Literal["test", "tiny", "small"] | None = None
    """Named size of a new model of two layers: test (32 wide), tiny (224), small (1024)."""
    bptt_length: Annotated[int, Field(ge=0)] = 0
    """Tokens after which gradients stop within a row; 0: they reach through all of it, and never from row to row."""
    label_smoothing: Share = 0.0
    """Share of a label's weight that all words get alike, in training."""
    d_model: FromArchitecture
    num_layers: FromArchitecture
    tie_embeddings: FromArchitecture
    layer_norm: FromArchitecture
    forget_bias: FromArchitecture
    logit_scale: FromArchitecture
    input_dropout: FromArchitecture
    hidden_dropout: FromArchitecture
    output_dropout: FromArchitecture
    between_dropout: FromArchitecture
    recurrent_dropout: FromArchitecture

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_layers == 1 and (idle := [name for name in _BETWEEN if getattr(self, name)]):
            raise ValueError(f"{', '.join(idle)}: between layers, and there is one; remove it.")


_BETWEEN = ("hidden_dropout", "between_dropout")
