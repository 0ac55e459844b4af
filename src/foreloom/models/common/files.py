"""Hugging Face folders: find one, read config.json and safetensors with sentences for errors, write both or nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from foreloom.files import whole_or_absent, write_text

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def resolve_folder(path_or_id: str | Path) -> Path:
    """A local folder as it is; anything else is a Hugging Face hub id, downloaded to (or found in) the hub's cache."""
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path_or_id), allow_patterns=["*.json", "*.safetensors"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{path_or_id} is neither a folder nor a model that the Hugging Face hub or its cache can give: {error}"
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; ValueError names the file that is missing or broken."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file.parent} has no {file.name}: it is not a model folder.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not valid JSON ({error.msg}).") from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; ValueError names a file that is missing, truncated or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise ValueError(f"{file.parent} has no {file.name}.")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} cannot be read ({error}); it is truncated or damaged, copy it again.") from None


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Copy the tensors into the module's own dtype; ValueError names the first tensors that do not fit."""
    own = module.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in tensors]
    wrong += [f"{name} is not part of the model" for name in tensors if name not in own]
    wrong += [
        f"{name} has shape {tuple(tensors[name].shape)}, the model {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(f"{file} does not fit its config.json: {'; '.join(wrong[:3])}{more}.")
    module.load_state_dict(dict(tensors))


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write model.safetensors and config.json, each whole or not at all. The config comes last: it marks the end."""
    from safetensors.torch import save_file

    with whole_or_absent(folder / WEIGHTS_FILE) as beside:
        save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, beside, {"format": "pt"})
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
