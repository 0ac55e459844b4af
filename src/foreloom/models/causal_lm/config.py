"""The recipe's `model` section of causal language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from foreloom.config.section import section

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
    "small": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
              "num_key_value_heads": 3},
}  # fmt: skip
"""Of new models; small has the shape of SmolLM-135M."""
_NEW: dict[str, Any] = {"model_type": "llama", "tie_word_embeddings": True}
_MISNAMED = {"google/gemma-270m": "google/gemma-3-270m", "google/gemma-270m-it": "google/gemma-3-270m-it"}


@section
class CausalLmConfig:
    """A causal language model of transformers: a pretrained one, or a new one of a named size."""

    family: Literal["causal_lm"] = "causal_lm"
    """The model family."""
    pretrained: str | None = None
    """A folder that transformers loads, a run of foreloom, or a hub id (google/gemma-3-270m; gated ones need HF_TOKEN).
    Unset: a new model."""
    size: Literal["tiny", "small"] | None = None
    """Named size of a new model of Llama's architecture: tiny (4 layers, 128 wide), small (30, 576)."""
    config: Mapping[str, Any] = Field(default_factory=dict)
    """Of a new model: settings of its config.json on top of the size, as transformers names them; model_type chooses
    another architecture (gemma3_text, qwen3)."""
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """auto: torch's fused attention (sdpa) where the architecture allows it, else eager. flash_attention_2: the
    flash-attn package, on CUDA in bf16."""
    trust_remote_code: bool = False
    """Run code that comes with the model's folder, where transformers has none for its architecture."""
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared logsumexp of the logits, which keeps them small; 1e-4 is common. 0: none."""
    router_aux_loss_coef: Annotated[float, Field(ge=0)] | None = None
    """Of a mixture of experts: weight of the loss that keeps their use even, of the global batch. Unset: what the
    model was published with. 0: none."""

    def __post_init__(self) -> None:
        if self.pretrained in _MISNAMED:
            raise ValueError(f"there is no {self.pretrained} on the hub; its id is {_MISNAMED[self.pretrained]}")
        if self.pretrained is not None and (self.size or self.config):
            raise ValueError("size and config describe a new model and have no effect beside pretrained; remove them")
        if self.pretrained is None and not self.size:
            raise ValueError("give pretrained, a folder or hub id, or the size of a new model")

    @property
    def attention(self) -> str | None:
        """As transformers has it, which chooses by itself where it is told nothing."""
        return None if self.attn_implementation == "auto" else self.attn_implementation

    def new_values(self) -> dict[str, Any]:
        """Of config.json, as far as the recipe decides it."""
        assert self.size is not None
        return _NEW | SIZES[self.size] | dict(self.config)
