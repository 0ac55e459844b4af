"""The families by name, ours and those of other packages. A family's code is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from foreloom.models.common.hub_folder import CONFIG_FILE, base_folder, read_json
from foreloom.models.common.lora import ADAPTER_CONFIG_FILE
from foreloom.models.family import ModelFamily

_BUILT_IN = ("chronos2", "chronos_bolt", "chronos_t5", "time_moe", "decoder", "lstm", "causal_lm")
"""Each is a package here whose `family` module holds the record `FAMILY`; the first that recognises a folder
has it, so causal_lm, which takes any language model, comes last."""
ENTRY_POINTS = "foreloom.families"
"""The group by which another package brings families: `mine = "my_package.family:FAMILY"`."""


def names() -> tuple[str, ...]:
    """All families, as in `model.family`: ours, then those of other packages in order of their names."""
    return *_BUILT_IN, *sorted(_brought())


def get(name: str) -> ModelFamily:
    """The family of that name; ValueError suggests the nearest one."""
    if name in _BUILT_IN:
        return importlib.import_module(f"foreloom.models.{name}.family").FAMILY
    if name in (brought := _brought()):
        where = f"the entry point {name} = {brought[name].value} of {ENTRY_POINTS}"
        try:
            family = brought[name].load()
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{where} cannot be loaded ({error}). Update its package, or take it out.") from error
        if not isinstance(family, ModelFamily) or family.name != name:
            raise ValueError(f"{where} is no ModelFamily of that name.")
        return family
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(f"there is no model family {name!r}; foreloom has {', '.join(names())}.{hint}")


def _brought() -> dict[str, EntryPoint]:
    """What installed packages bring. A name of ours stays ours."""
    return {one.name: one for one in entry_points(group=ENTRY_POINTS) if one.name not in _BUILT_IN}


def whole_model(folder: str | Path) -> Path:
    """The folder with config.json and the tokenizer: of a LoRA adapter, that of its base."""
    folder = Path(folder)
    if not (folder / ADAPTER_CONFIG_FILE).is_file():
        return folder
    return base_folder(folder, read_json(folder / ADAPTER_CONFIG_FILE))


def recognise(folder: str | Path) -> ModelFamily:
    """The family of a Hugging Face folder (or of the base of a LoRA adapter), told by its config.json."""
    folder = whole_model(folder)
    config = read_json(folder / CONFIG_FILE)
    if family := family_of(config):
        return family
    what = config.get("chronos_pipeline_class") or config.get("architectures") or config.get("model_type")
    raise ValueError(f"{folder} holds a model foreloom does not know ({what}); it knows {', '.join(names())}.")


def family_of(config: Mapping[str, Any]) -> ModelFamily | None:
    """The family a config.json belongs to, if it is one of ours."""
    return next((family for family in map(get, names()) if family.recognises(config)), None)
