"""The Hugging Face folder of a checkpoint: whole weights on the host, written by the family, and a model card."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from foreloom.checkpoint.manifest import NAME as MANIFEST_NAME
from foreloom.checkpoint.manifest import Manifest, file_record, installed_versions, write_json
from foreloom.files import whole_or_absent, write_text
from foreloom.models.family import ModelFamily

CARD_NAME = "README.md"
_LAST_SECTION = "Licence"


def whole_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """All weights under the names of the unwrapped model, on the CPU: filled on rank 0, empty on the others.

    Collective: every rank calls it.
    """
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))  # type: ignore[return-value]


def write_folder(
    family: ModelFamily, model: nn.Module, state_dict: dict[str, Tensor], folder: Path, card: str = ""
) -> None:
    """Write config.json and model.safetensors through the family, and the model card. `model` is the unwrapped one."""
    folder.mkdir(parents=True, exist_ok=True)
    if card:
        write_text(folder / CARD_NAME, card)
    try:
        family.save(model, state_dict, folder)
    except SafetensorError as error:
        raise OSError(f"{folder}: {error}") from error


def model_card(
    name: str, family: ModelFamily, facts: Mapping[str, Mapping[str, Any]], *, base: str | None, step: int
) -> str:
    """README.md of a model folder, in the form that the Hugging Face hub shows.

    `facts`: titled sections of labels and values, as a run's banner has them; `base`: the hub id it was fine-tuned
    from, if any; `step`: the optimizer step of the weights.
    """
    header = ["library_name: foreloom", f"tags: [{family.name}]"]
    header += ["pipeline_tag: time-series-forecasting"] if family.forecaster else []
    header += [f"base_model: {base}"] if base else []
    use = ["import foreloom", "", 'model = foreloom.from_pretrained("OWNER/NAME")  # or the path of this folder']
    if family.forecaster:
        use += ["forecast = model.predict_df(table, prediction_length=24)  # columns item_id, timestamp, target"]
    tables = [
        "\n".join(
            [f"| {title} | |", "| :--- | :--- |", *(f"| {label} | {_cell(value)} |" for label, value in rows.items())]
        )
        for title, rows in facts.items()
    ]
    parts = [
        "\n".join(["---", *header, "---"]),
        f"# {name}",
        f"A model of the family {family.name}: the weights after step {step:,} of a run of foreloom "
        f"{installed_versions()['foreloom']}.",
        "## Use",
        "\n".join(["```python", *use, "```"]),
        "The files are laid out as the published models of the family are, or as PEFT's where they hold an adapter "
        "alone, so what loads those loads this, as far as it knows such models.",
        "## Training",
        *tables,
        f"## {_LAST_SECTION}",
        "The run does not know the licences of its data and of the model it began with; the weights may be bound by "
        "both. Before you publish them, say `license:` in the header.",
    ]
    return "\n\n".join(parts) + "\n"


def add_to_card(folder: Path, title: str, text: str) -> Path:
    """Put a section into the card of a model folder, in place of the one that bears the title; the card's path. The
    manifest of a checkpoint learns of it.

    Raises ValueError where the folder has no card.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        raise ValueError(f"{path}: there is no model card to write into. Give a folder that foreloom has written.")
    begin, *sections = re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    others = [one for one in sections if one.partition("\n")[0] != f"## {title}"]
    last = len(others) - (bool(others) and others[-1].startswith(f"## {_LAST_SECTION}\n"))
    others.insert(last, f"## {title}\n\n{text.strip()}\n\n")
    write_text(path, begin + "".join(others))
    checkpoint = folder.parent
    if folder.name == "hf" and (checkpoint / MANIFEST_NAME).is_file():
        manifest = Manifest.read(checkpoint)
        files = {**manifest.files, f"hf/{CARD_NAME}": file_record(path)}
        with whole_or_absent(checkpoint / MANIFEST_NAME) as beside:
            write_json(beside, dataclasses.asdict(dataclasses.replace(manifest, files=files)))
    return path


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text.replace("|", "\\|")
