"""What a Chronos-2 checkpoint's config.json says, read and written without losing a key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.models.common.feed_forward import ACTIVATIONS

PIPELINE_CLASS = "Chronos2Pipeline"

QUANTILES_21 = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85,
                0.9, 0.95, 0.99)  # fmt: skip
QUANTILES_13 = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

_TOP_LEVEL = (
    "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "dropout_rate", "layer_norm_epsilon", "initializer_factor",
    "feed_forward_proj", "rope_theta",
)  # fmt: skip
_NESTED = ("context_length", "input_patch_size", "use_reg_token", "use_arcsinh", "max_output_patches",
           "time_encoding_scale")  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """Everything that shapes a Chronos-2 model, under the names of its config.json. Defaults are the reference's."""

    context_length: int
    """Most context steps the model looks at."""
    input_patch_size: int
    """Steps of a patch, of the input and of the output."""
    quantiles: tuple[float, ...]
    """Ascending."""
    d_model: int = 512
    d_kv: int = 64
    """Width of one attention head; num_heads * d_kv need not equal d_model."""
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 0.05
    feed_forward_proj: str = "relu"
    rope_theta: float = 10000.0
    use_reg_token: bool = False
    """A register token between context and future."""
    use_arcsinh: bool = False
    max_output_patches: int = 1
    """Most patches of one forward; longer horizons are unrolled."""
    time_encoding_scale: int = 0
    """Steps that the time channel calls 1; 0 stands for the context length at construction."""
    published: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The config.json this came from, for the keys that mean nothing here but must survive."""

    def __post_init__(self) -> None:
        if not self.time_encoding_scale:
            object.__setattr__(self, "time_encoding_scale", self.context_length)
        if self.feed_forward_proj not in ACTIVATIONS:
            known = " or ".join(sorted(ACTIVATIONS))
            raise ValueError(f"feed_forward_proj is {self.feed_forward_proj!r}; Chronos-2 has {known}.")
        if list(self.quantiles) != sorted(set(self.quantiles)) or not all(0 < q < 1 for q in self.quantiles):
            raise ValueError(f"quantiles must ascend strictly between 0 and 1, got {list(self.quantiles)}.")
        if not self.quantiles:
            raise ValueError("quantiles is empty; name at least one level, 0.5 for instance.")
        if self.d_kv % 2:
            raise ValueError(f"d_kv is {self.d_kv}; rotary positions need an even head width.")

    @property
    def inner_width(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.d_kv

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Architecture:
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
        known |= {key: nested[key] for key in _NESTED if nested.get(key) is not None}
        architecture, wrong = validate(cls, known | {"quantiles": nested["quantiles"]}, Located({}), "")
        if wrong:
            raise ValueError(f"config.json: {wrong[0]}")
        return dataclasses.replace(architecture, published=config)

    def to_published(self, dtype: str) -> dict[str, Any]:
        """The config.json that chronos-forecasting loads, with every key of the one this came from."""
        dtype_keys = [key for key in ("dtype", "torch_dtype") if key in self.published] or ["dtype"]
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
        config |= {key: getattr(self, key) for key in _TOP_LEVEL} | dict.fromkeys(dtype_keys, dtype)
        config["chronos_config"] = {
            "output_patch_size": self.input_patch_size,
            "input_patch_stride": self.input_patch_size,
            **self.published.get("chronos_config", {}),
            **{key: getattr(self, key) for key in _NESTED},
            "quantiles": list(self.quantiles),
        }
        return dict(sorted(config.items()))

    def replace(self, **changes: Any) -> Architecture:
        """A copy with some fields changed. The time scale stays what it is."""
        return dataclasses.replace(self, **changes)


def architecture_of_module(module: nn.Module) -> Architecture:
    """The architecture a Chronos-2 module was built with."""
    architecture = module.architecture
    assert isinstance(architecture, Architecture)
    return architecture


SIZES: dict[str, dict[str, Any]] = {
    "test": {"num_layers": 2, "d_model": 256, "d_ff": 1024, "num_heads": 4, "quantiles": QUANTILES_21},
    "small": {"num_layers": 6, "d_model": 512, "d_ff": 2048, "num_heads": 8, "quantiles": QUANTILES_13,
              "time_encoding_scale": 8192},
    "base": {"num_layers": 12, "d_model": 768, "d_ff": 3072, "num_heads": 12, "quantiles": QUANTILES_21,
             "time_encoding_scale": 8192},
}  # fmt: skip
"""Named sizes. The time scale of small and base is that of their last stage (context 8192) from the first step on,
because a later, longer stage must not change what the time channel means."""

SIZE_DEFAULTS: dict[str, Any] = {"input_patch_size": 16, "use_reg_token": True, "use_arcsinh": True}
"""What every named size shares."""
