"""A sharded model's weights, whole and on the host: what a family writes into a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from foreloom.models.family import ModelFamily


def whole_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """All weights under the names of the unwrapped model, on the CPU: filled on rank 0, empty on the others.

    Collective: every rank calls it.
    """
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))  # type: ignore[return-value]


def write_folder(family: ModelFamily, model: nn.Module, state_dict: dict[str, Tensor], folder: Path) -> None:
    """Write config.json and model.safetensors through the family. `model` is the unwrapped module."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        family.save(model, state_dict, folder)
    except SafetensorError as error:
        raise OSError(f"{folder}: {error}") from error
