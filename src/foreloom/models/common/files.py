"""Hugging Face folders: find one, read config.json and safetensors with sentences for errors, write both or nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from foreloom.files import whole_or_absent, write_text

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
"""Of weights spread over several files: which file holds which tensor."""


def resolve_folder(path_or_id: str | Path, **download: Any) -> Path:
    """A local folder as it is; anything else is a Hugging Face hub id, downloaded to (or found in) the hub's cache.

    `download`: options of `huggingface_hub.snapshot_download` (revision, token, cache_dir ...).
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path_or_id), allow_patterns=["*.json", "*.safetensors"], **download))
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


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder, in one file or in those its index names; ValueError names what is wrong."""
    if (folder / WEIGHTS_FILE).is_file() or not (folder / INDEX_FILE).is_file():
        return read_tensors(folder / WEIGHTS_FILE)
    weight_map = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{folder / INDEX_FILE} has no weight_map, which says what file holds which tensor.")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        tensors |= read_tensors(folder / name)
    return tensors


def load_weights(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], file: Path) -> None:
    """Copy `tensors` into the model's `own`, whatever their dtypes; ValueError names the first that do not fit."""
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
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write model.safetensors and config.json, each whole or not at all. The config comes last: it marks the end."""
    from safetensors.torch import save_file

    with whole_or_absent(folder / WEIGHTS_FILE) as beside:
        save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, beside, {"format": "pt"})
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
