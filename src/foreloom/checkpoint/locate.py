"""Where a model's weights lie: a model folder, a checkpoint, a run folder, the package, or the Hugging Face hub."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from foreloom.checkpoint.manifest import Manifest, find_damage
from foreloom.config.shipped import shipped_models
from foreloom.models.common.hub_folder import resolve_folder

T = TypeVar("T")
_MODEL_FILES = ("config.json", "adapter_config.json")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_model_folder(path_or_hub_id: str | Path) -> Path:
    """The folder that holds config.json: the path itself, its `hf/`, or that of a run's newest whole checkpoint.

    Where no such folder holds one, a name is a model that comes with foreloom (`small`), and what looks like owner/name
    is downloaded from the hub (cached). ValueError otherwise.
    """
    path, name, shipped = Path(path_or_hub_id).expanduser(), str(path_or_hub_id), shipped_models()
    if path.is_dir():
        newest_first = sorted((path / "checkpoints").glob("step-*[0-9]"), reverse=True)
        whole = (checkpoint / "hf" for checkpoint in newest_first if _is_whole(checkpoint))
        for folder in (path, path / "hf", *whole):
            if any((folder / file).is_file() for file in _MODEL_FILES):
                if name in shipped:
                    warnings.warn(f"{name} is the folder here, not the model that comes with foreloom.", stacklevel=2)
                return folder
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise ValueError(
            f"{path} holds no model: neither config.json, nor hf/config.json, nor checkpoints/step-*/hf/config.json."
        )
    if path.is_file():
        raise ValueError(f"{path} is a file. Give the folder with config.json and model.safetensors.")
    if not path.parent.is_dir() and _HUB_ID.fullmatch(name):
        return resolve_folder(name)
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    known = [*beside, *shipped] if path.parent == Path() else beside
    close = difflib.get_close_matches(path.name, known, n=1)
    wanted = f"Give a run, checkpoint or model folder, a hub id, or what comes with foreloom ({', '.join(shipped)})."
    if close:
        wanted = f"Did you mean {path.parent / close[0]}?"
    raise ValueError(f"there is no folder {path}. {wanted}")


def check_hides_no_run(folder: str | Path) -> None:
    """ValueError where a model in `folder` would stand before the run or the fit that the folder holds, see
    `find_model_folder`."""
    for kind in ("checkpoints/step-*[0-9]", *(f"hf/{file}" for file in _MODEL_FILES)):
        if found := next(Path(folder).glob(kind), None):
            raise ValueError(
                f"{folder} holds a run or a fit ({found.relative_to(folder)}), whose model nobody would find behind "
                "this one. Name another folder."
            )


def model_file_in(folder: Path) -> str:
    """The file of a model that `find_model_folder` finds in a folder before the checkpoints of a run; "" for none."""
    names = [f"{place}{file}" for place in ("", "hf/") for file in _MODEL_FILES]
    return next((name for name in names if (folder / name).is_file()), "")


def load_newest(path_or_hub_id: str | Path, load: Callable[[Path], T]) -> T:
    """`load` of `find_model_folder`; again, of the newest, where a run under way deletes the checkpoint meanwhile."""
    while True:
        folder = find_model_folder(path_or_hub_id)
        try:
            return load(folder)
        except (OSError, ValueError):
            if find_model_folder(path_or_hub_id) == folder:
                raise


def _is_whole(checkpoint: Path) -> bool:
    """Can its manifest, which is written last, be read, and is hf/ as it says? One that is not is warned of."""
    try:
        files = Manifest.read(checkpoint).files
    except ValueError as error:
        damage = [str(error)]
    else:
        damage = find_damage(checkpoint, files, [name for name in files if name.startswith("hf/")])
    if damage:
        warnings.warn(f"{checkpoint} is passed over: {damage[0]}", stacklevel=3)
    return not damage
