"""What a run leaves for analysis: `<label>.csv`, a row a log line, and `config_<label>.json`, all that was set and why.

Both are made of the run's own metrics.jsonl and recipe, and name no place of this machine: they can be copied.
"""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from foreloom.config.loader import flatten, plain, read_recipe
from foreloom.files import strict_json, write_text
from foreloom.lab.fit.parametric import FLOPS_PER_PARAMETER_TOKEN
from foreloom.lab.runs import Outcome
from foreloom.lab.study.resolve import Planned
from foreloom.monitoring.metrics_file import FILE_NAME as METRICS_NAME
from foreloom.monitoring.metrics_file import read_metrics
from foreloom.run.recipe import SECTIONS

T = TypeVar("T")
COLUMNS = (
    "optimizer_step", "loss", "validation_loss", "tokens_processed", "learning_rate", "theoretical_flops_chinchilla",
    "flops", "seconds",
)  # fmt: skip
"""Before one for the learning rate of each group of parameters, where they differ."""
CONVENTIONS = {
    "loss": "mean of the steps since the row before, each over all its targets, those of other processes too",
    "validation_loss": "of all that is held out, for the weights after the step",
    "tokens_processed": "targets in the loss since the run began, of all micro-batches and processes",
    "theoretical_flops_chinchilla": "6 N D: N by n_convention, D is tokens_processed",
    "flops": "forward and backward of the rows trained on, matrix products counted exactly by the model's family",
    "seconds": "wall time since the run began, all sessions",
}


def csv_path(folder: Path, label: str) -> Path:
    return folder / f"{label}.csv"


def config_path(folder: Path, label: str) -> Path:
    return folder / f"config_{label}.json"


def rows_of(run_dir: Path, num_parameters: int) -> list[dict[str, Any]]:
    """A row for each step that was logged or validated; what was not measured there is left out. `num_parameters` is N
    of 6 N D."""
    metrics = read_metrics(run_dir)
    validated = {event["step"]: event for event in metrics.events if event["kind"] == "validation"}
    rows: dict[int, dict[str, Any]] = {0: {"tokens_processed": 0, "theoretical_flops_chinchilla": 0, "flops": 0}}
    for record in metrics.steps:
        tokens = record["loss_terms"]
        rows[record["step"]] = {
            "loss": record["loss"],
            "tokens_processed": tokens,
            "learning_rate": record["learning_rate"],
            "theoretical_flops_chinchilla": FLOPS_PER_PARAMETER_TOKEN * num_parameters * tokens,
            "flops": record["flops"],
            "seconds": record["seconds"],
        } | {f"learning_rate_{name}": rate for name, rate in (record.get("learning_rates") or {}).items()}
    for step, event in validated.items():
        figures = event.get("figures") or {}
        rows.setdefault(step, {})["validation_loss"] = figures.get("forecast_loss", event["loss"])
    if 0 not in validated:
        del rows[0]
    return [{"optimizer_step": step, **rows[step]} for step in sorted(rows)]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Numbers with every digit; nan where a loss was not finite, nothing where none was measured."""
    names = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    table.writerows([_cell(row[name]) if name in row else "" for name in names] for row in rows)
    write_text(path, text.getvalue())


def _cell(value: float | None) -> str:
    if value is None:
        return "nan"
    return str(int(value)) if float(value).is_integer() else repr(value)


def write_results(planned: Planned, folder: Path, run_dir: Path, outcome: Outcome | None) -> None:
    """The files of a run, finished or not, in the folder of its study. Without a step there is no CSV."""
    rows = []
    if (run_dir / METRICS_NAME).is_file():
        facts = planned.facts
        name = "num_parameters" if facts["n_convention"] == "total" else "num_non_embedding"
        rows = rows_of(run_dir, facts[name])
    if rows:
        write_csv(csv_path(folder, planned.label), rows)
    config = config_of(planned, outcome, rows)
    write_text(config_path(folder, planned.label), json.dumps(strict_json(config), indent=1, ensure_ascii=False))


def config_of(planned: Planned, outcome: Outcome | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The run's facts, its settings as they are written (paths as the recipe has them) and where each comes from; the
    machine and the outcome, in blocks of their own, are what differs where it is run elsewhere."""
    sections = dict(read_recipe(planned.recipe, planned.overrides, SECTIONS).sections)
    settings = flatten({name: plain(one) for name, one in sections.items()})
    last: Mapping[str, Any] = rows[-1] if rows else {}
    return {
        "label": planned.label,
        "study": planned.folder,
        "recipe": planned.recipe.name,
        **planned.facts,
        "num_tokens": last.get("tokens_processed"),
        "tokens_are": tokens_are(sections),
        "conventions": CONVENTIONS,
        "given": {**planned.given, "recipe": planned.recipe.name},
        "reasons": dict(planned.reasons),
        "settings": {key: value for key, value in settings.items() if key != "training.output_dir"},
        "machine": {"host": platform.node(), "system": platform.platform(), "processes": planned.num_processes},
        "outcome": None if outcome is None else vars(outcome) | {"folder": "", "recipe": planned.recipe.name},
    }


def tokens_are(sections: Mapping[str, Any]) -> str:
    """What tokens_processed counts."""
    model, data = sections["model"], sections["data"]
    if "reference" in (getattr(model, "reduction", ""), getattr(model, "protocol", "")):
        return "rows or batches, as the recipe's loss (reference) counts them: not to be compared with others"
    return "tokens of text" if hasattr(data, "max_seq_length") else "time steps of series that are forecast"


def read_outcome(folder: Path, label: str) -> Outcome | None:
    """How a run ended the last time; None where that is not known."""
    return _read_config(folder, label, lambda found: None if found["outcome"] is None else Outcome(**found["outcome"]))


def read_num_steps(folder: Path, label: str) -> int | None:
    """Of how many steps a run was when its configuration was written; None where that is not known."""
    return _read_config(folder, label, lambda found: found.get("num_steps"))


def _read_config(folder: Path, label: str, read: Callable[[dict[str, Any]], T]) -> T | None:
    path = config_path(folder, label)
    if not path.is_file():
        return None
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path}: not the configuration of a run; delete it, and it is written anew.") from None
