"""Time-MoE for transformers' Auto classes: the config AutoConfig reads, the class AutoModelForCausalLM gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from foreloom.models.common.attention import Implementation
from foreloom.models.common.hub_folder import resolve_folder
from foreloom.models.time_moe.architecture import MODEL_TYPE, Architecture
from foreloom.models.time_moe.checkpoint import FOLDER, load
from foreloom.models.time_moe.model import TimeMoeForPrediction

_DOWNLOAD_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")
_IGNORED = ("trust_remote_code", "adapter_kwargs", "_from_auto", "_commit_hash")
"""What AutoModelForCausalLM hands on and means nothing here."""


class AutoTimeMoeConfig(PreTrainedConfig):
    """config.json of a Time-MoE folder, as transformers holds it."""

    model_type = MODEL_TYPE


class AutoTimeMoe(TimeMoeForPrediction):
    """Time-MoE with the doors that users of transformers expect: from_pretrained, save_pretrained, config, generate."""

    config_class = AutoTimeMoeConfig

    def __init__(self, arch: Architecture, config: AutoTimeMoeConfig) -> None:
        super().__init__(arch)
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: AutoTimeMoeConfig | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: str | torch.device | None = None,
        attn_implementation: str | None = None,
        protocol: str = "standard",
        **options: Any,
    ) -> AutoTimeMoe:
        """Load a folder or hub id, in evaluation mode.

        `dtype` (once `torch_dtype`): float32 unless asked, also where the folder holds bfloat16, since a context is
        rounded to the model's dtype; "auto" takes the folder's. `device_map`: one device. `attn_implementation`: auto,
        eager, sdpa or flash_attention_2. `protocol`: "reference" is the official code's, which also forecasts beyond
        `max_position_embeddings` from the whole context; standard uses the newest steps. ValueError for other options
        and for folders that do not fit.
        """
        download = {name: options.pop(name) for name in _DOWNLOAD_OPTIONS if options.get(name) is not None}
        unknown = [name for name in options if name not in (*_IGNORED, *_DOWNLOAD_OPTIONS)]
        if unknown:
            raise ValueError(
                f"from_pretrained: {', '.join(unknown)} mean nothing to foreloom's Time-MoE; it takes dtype, "
                "device_map (one device), attn_implementation and protocol."
            )
        folder = resolve_folder(pretrained_model_name_or_path, **download)
        config = AutoTimeMoeConfig.from_pretrained(folder) if config is None else config
        named = attn_implementation or config._attn_implementation or "auto"  # where AutoConfig puts what was asked
        if named not in get_args(Implementation):
            raise ValueError(f"attn_implementation {named!r}: choose one of {', '.join(get_args(Implementation))}.")
        loaded = load(folder, protocol)
        with torch.device("meta"):
            model = cls(loaded.architecture, config)
        model.load_state_dict(loaded.state_dict(), assign=True)
        model.attn_implementation = cast(Implementation, named)
        model.protocol = loaded.protocol
        return model.to(device=_device(device_map), dtype=_dtype(dtype or torch_dtype, config)).eval()

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write config.json and model.safetensors under the official names."""
        FOLDER.save(self, self.state_dict(), Path(save_directory))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def _device(device_map: Any) -> torch.device:
    if device_map == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device("cpu" if device_map is None else device_map)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"device_map {device_map!r}: name one device, such as cuda or cuda:1; foreloom's Time-MoE is not spread "
            "over several."
        ) from None


def _dtype(asked: torch.dtype | str | None, config: AutoTimeMoeConfig) -> torch.dtype:
    if asked == "auto":
        asked = config.dtype
    found = getattr(torch, asked, None) if isinstance(asked, str) else asked or torch.float32
    if not isinstance(found, torch.dtype):
        raise ValueError(f"dtype {asked!r} is none of torch's; write float32, bfloat16 or auto.")
    return found


AutoConfig.register(MODEL_TYPE, AutoTimeMoeConfig, exist_ok=True)
AutoModelForCausalLM.register(AutoTimeMoeConfig, AutoTimeMoe, exist_ok=True)
