"""The families by name. A family's code is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreloom.models.common.hub_folder import CONFIG_FILE, base_folder, read_json
from foreloom.models.common.lora import ADAPTER_CONFIG_FILE
from foreloom.models.family import ModelFamily

_FAMILIES = ("chronos2", "chronos_bolt", "chronos_t5", "time_moe")
"""Each is a package here whose `family` module holds the record `FAMILY`."""


def names() -> tuple[str, ...]:
    """All families, as in `model.family`."""
    return _FAMILIES


def get(name: str) -> ModelFamily:
    """The family of that name; ValueError suggests the nearest one."""
    if name not in _FAMILIES:
        close = difflib.get_close_matches(name, _FAMILIES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"there is no model family {name!r}; foreloom has {', '.join(_FAMILIES)}.{hint}")
    return importlib.import_module(f"foreloom.models.{name}.family").FAMILY


def recognise(folder: str | Path) -> ModelFamily:
    """The family of a Hugging Face folder (or of the base of a LoRA adapter), told by its config.json."""
    folder = Path(folder)
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        folder = base_folder(folder, read_json(folder / ADAPTER_CONFIG_FILE))
    config = read_json(folder / CONFIG_FILE)
    if family := family_of(config):
        return family
    what = config.get("chronos_pipeline_class") or config.get("architectures") or config.get("model_type")
    raise ValueError(f"{folder} holds a model foreloom does not know ({what}); it knows {', '.join(_FAMILIES)}.")


def family_of(config: Mapping[str, Any]) -> ModelFamily | None:
    """The family a config.json belongs to, if it is one of ours."""
    return next((family for family in map(get, _FAMILIES) if family.recognises(config)), None)
