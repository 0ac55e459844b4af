"""What a Chronos-Bolt checkpoint's config.json says, read and written without losing a key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.models.common.feed_forward import ACTIVATIONS
from foreloom.models.common.t5.shape import SHAPE_FIELDS, T5Shape

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

    context_length: int
    """Most context steps the model looks at."""
    prediction_length: int
    """Steps of the head, forecast in one go; longer horizons are unrolled."""
    input_patch_size: int = 16
    """Steps of a patch."""
    quantiles: tuple[float, ...] = DECILES
    """Ascending."""
    use_reg_token: bool = False
    """A register token after the patches."""
    published: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The config.json this came from, for the keys that mean nothing here but must survive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feed_forward_proj not in ACTIVATIONS:
            known = " or ".join(sorted(ACTIVATIONS))
            raise ValueError(f"feed_forward_proj is {self.feed_forward_proj!r}; Chronos-Bolt has {known}.")
        if not self.quantiles:
            raise ValueError("quantiles is empty; name at least one level, 0.5 for instance.")
        if list(self.quantiles) != sorted(set(self.quantiles)) or not all(0 < q < 1 for q in self.quantiles):
            raise ValueError(f"quantiles must ascend strictly between 0 and 1, got {list(self.quantiles)}.")

    def num_patches(self, num_steps: int) -> int:
        """Patches of a context of so many steps."""
        return -(-num_steps // self.input_patch_size)

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> Architecture:
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
        architecture, wrong = validate(cls, known, Located({}), "")
        if wrong:
            raise ValueError(f"config.json: {wrong[0]}")
        return dataclasses.replace(architecture, published=config)

    def to_published(self, dtype: str) -> dict[str, Any]:
        """The config.json that chronos-forecasting loads, with every key of the one this came from."""
        dtype_keys = [key for key in ("dtype", "torch_dtype") if key in self.published] or ["dtype"]
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
        config |= {key: getattr(self, key) for key in SHAPE_FIELDS} | dict.fromkeys(dtype_keys, dtype)
        config["chronos_config"] = {
            **self.published.get("chronos_config", {}),
            **{key: getattr(self, key) for key in _NESTED},
            "input_patch_stride": self.input_patch_size,
            "quantiles": list(self.quantiles),
        }
        return dict(sorted(config.items()))

    def replace(self, **changes: Any) -> Architecture:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def architecture_of_module(module: nn.Module) -> Architecture:
    """The architecture a Chronos-Bolt module was built with."""
    architecture = module.architecture
    assert isinstance(architecture, Architecture)
    return architecture


SIZES: dict[str, dict[str, Any]] = {
    "test": {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_heads": 4},
    "tiny": {"d_model": 256, "d_ff": 1024, "num_layers": 4, "num_heads": 4},
    "mini": {"d_model": 384, "d_ff": 1536, "num_layers": 4, "num_heads": 8},
    "small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
"""Named sizes; but for `test`, those of t5-efficient (Tay et al. 2021)."""

SIZE_DEFAULTS: dict[str, Any] = {"use_reg_token": True, "initializer_factor": 0.05}
"""What every named size shares, as the published configurations have it."""
