"""Hugging Face folders: find one, read config.json and safetensors with sentences for errors, write both or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from foreloom.files import whole_or_absent, write_text
from foreloom.models.common.architecture import PublishedArchitecture
from foreloom.models.common.lora import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, check_same_base, merge_adapter

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
"""Of weights spread over several files: which file holds which tensor."""
_FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""Of a hub repository; the last three are a tokenizer's."""


def resolve_folder(path_or_id: str | Path, **download: Any) -> Path:
    """A local folder as it is; anything else is a Hugging Face hub id, downloaded to (or found in) the hub's cache.

    `download`: options of `huggingface_hub.snapshot_download` (revision, token, cache_dir ...).
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path_or_id), allow_patterns=_FETCHED, **download))
    except GatedRepoError as error:
        raise ValueError(
            f"{path_or_id} is gated: accept its terms at https://huggingface.co/{path_or_id} and set HF_TOKEN to a "
            "token of your account, or give a folder that holds the model."
        ) from error
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{path_or_id} is neither a folder nor a model that the Hugging Face hub or its cache can give: "
            f"{' '.join(str(error).split())}"
        ) from error


def base_folder(adapter_folder: Path, config: Mapping[str, Any]) -> Path:
    """The model an adapter belongs to: a path, a folder of that name beside the adapter, or a hub id."""
    file, base = adapter_folder / ADAPTER_CONFIG_FILE, config.get("base_model_name_or_path")
    if not base:
        raise ValueError(f"{file} names no base_model_name_or_path. Write there where its base lies.")
    beside = adapter_folder.parent / Path(base).name
    if beside.is_dir() and beside.name != adapter_folder.name and not Path(base).is_dir():
        return beside
    try:
        return resolve_folder(base)
    except ValueError as error:
        raise ValueError(
            f"{file}: the base model is not here. {error} Put it back, or name where it is now."
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; ValueError names the file that is missing or broken."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file.parent} has no {file.name}: it is not a model folder.") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not valid JSON ({error.msg}). Copy it again.") from None
    except RecursionError:
        raise ValueError(f"{file} is nested too deep to be a model's. Copy it again.") from None
    except ValueError as error:  # no UTF-8, or a whole number of thousands of digits
        raise ValueError(f"{file}: not valid JSON ({error}). Copy it again.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected a JSON object, got a {type(values).__name__}. Copy it again.")
    return values


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; ValueError names a file that is missing, truncated or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise ValueError(f"{file.parent} has no {file.name}: the weights are missing. Copy the folder again.")
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
        raise ValueError(
            f"{folder / INDEX_FILE} has no weight_map, which says what file holds which tensor. Copy it again."
        )
    files = set(map(str, weight_map.values()))
    if outside := sorted(name for name in files if not name.endswith(".safetensors") or Path(name).name != name):
        raise ValueError(f"{folder / INDEX_FILE} names {outside[0]}, which is no safetensors file of its folder.")
    tensors: dict[str, Tensor] = {}
    for name in sorted(files):
        tensors |= read_tensors(folder / name)
    return tensors


def _check_weights(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], file: Path) -> None:
    """ValueError names the first of `tensors` that do not fit the model's `own`, which may be on the meta device, or
    that are not finite."""
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
    if broken := next((name for name in own if not tensors[name].isfinite().all()), ""):
        raise ValueError(
            f"{file}: {broken} holds values that are not finite, so the model answers nothing. Its training failed, or "
            "the file is damaged: take an earlier checkpoint, or copy it again."
        )


def _check_size(arch: PublishedArchitecture, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """ValueError where a config.json asks for more than its weights hold, before anything of that size is made."""
    asked, held = arch.fewest_weights, (len(tensors), sum(x.numel() for x in tensors.values()))
    if asked[0] > held[0] or asked[1] > held[1]:
        raise ValueError(
            f"{folder / CONFIG_FILE} describes a model of at least {asked[0]:,} tensors with {asked[1]:,} numbers; the "
            f"weights beside it are {held[0]:,} with {held[1]:,}. They do not belong together."
        )


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write model.safetensors and config.json, each whole or not at all. The config comes last: it marks the end."""
    from safetensors.torch import save_file

    with whole_or_absent(folder / WEIGHTS_FILE) as beside:
        save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, beside, {"format": "pt"})
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class HubFolder(Generic[M]):
    """How the published folders of a family are told from others, read and written."""

    model_name: str
    """For messages."""
    recognises: Callable[[Mapping[str, Any]], bool]
    """Is this config.json one of the family?"""
    architecture: type[PublishedArchitecture]
    module: Callable[[Any], M]
    """The module of an architecture."""
    own_tensors: Callable[[dict[str, Tensor], Path, Any], dict[str, Tensor]] = lambda tensors, file, arch: tensors
    """own_tensors(tensors, file, architecture): those that the model has, of a file that may hold more."""
    published_names: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state_dict: state_dict
    """A state dict under the published names, in the same memory."""

    def load(self, folder: str | Path) -> M:
        """The model of a folder, float32 whatever the file holds, on the CPU, in evaluation mode; a folder with a LoRA
        adapter is merged into its base.

        ValueError with a sentence for a folder of another family, and for weights that are damaged or do not fit.
        """
        adapter = Path(folder) if (Path(folder) / ADAPTER_CONFIG_FILE).is_file() else None
        folder = Path(folder) if adapter is None else base_folder(adapter, read_json(adapter / ADAPTER_CONFIG_FILE))
        config = read_json(folder / CONFIG_FILE)
        if not self.recognises(config):
            raise ValueError(
                f"{folder} is not a {self.model_name} model: its {CONFIG_FILE} says {config.get('architectures')}."
            )
        try:
            arch = self.architecture.read(config)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        tensors = read_weights(folder)
        _check_size(arch, tensors, folder)
        tensors = self.own_tensors(tensors, folder / WEIGHTS_FILE, arch)
        if adapter is not None:
            config = read_json(adapter / ADAPTER_CONFIG_FILE)
            weights = read_tensors(adapter / ADAPTER_WEIGHTS_FILE)
            check_same_base(tensors, adapter)
            merge_adapter(tensors, weights, config, adapter)
        model = self._shapes(arch)
        _check_weights(self.published_names(model.state_dict()), tensors, folder / WEIGHTS_FILE)
        model = self._allocated(model)
        for name, tensor in self.published_names(model.state_dict()).items():
            tensor.copy_(tensors[name])  # whatever its dtype
        return model.eval()

    def save(self, module: nn.Module, state_dict: Mapping[str, Tensor], folder: Path) -> None:
        """Write the folder that the reference library's `from_pretrained` loads, as far as it knows such models."""
        dtype = str(next(iter(state_dict.values())).dtype).removeprefix("torch.")
        architecture = module.architecture
        assert isinstance(architecture, PublishedArchitecture)
        write_folder(Path(folder), architecture.written(dtype), self.published_names(state_dict))

    def empty(self, arch: Any) -> M:
        """The module with its parameters allocated and not filled; on the meta device where that is the default."""
        return self._allocated(self._shapes(arch))

    def _shapes(self, arch: Any) -> M:
        with torch.device("meta"):
            return self.module(arch)

    def _allocated(self, model: M) -> M:
        return model if torch.get_default_device().type == "meta" else model.to_empty(device="cpu")
