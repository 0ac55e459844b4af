"""`foreloom evaluate --suite`: models on the tasks of a suite whose data is there; the rest is listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from foreloom.evaluation.sliding import SlidingWindows
from foreloom.evaluation.suites import Found, MissingTask, Suite, data_root_of, find_data, load, missing_sentence
from foreloom.evaluation.suites import suite_tasks as tasks_of
from foreloom.report.score_files import default_csv
from foreloom.report.scores import score_tasks
from foreloom.report.sliding import SlidingOptions, SlidingTask, score_sliding, window_cutter


def evaluate_suite_and_tabulate(
    models: Sequence[str | Path],
    suite: str,
    data_root: str | Path | None = None,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> Path:
    """Score `models` and Seasonal Naive on a suite; print the table, write CSV, Markdown and pictures of forecasts.

    `suite` is a name or a YAML file. Tasks without data below `data_root` (default: the suite's own variable) are named
    in a note with the command that fetches them; nothing is fetched from here. `out` as for `evaluate_and_tabulate`.
    Raises ValueError where no task has data.
    """
    listed = load(suite)
    root = data_root_of(listed, data_root)
    csv_path = Path(out) if out else default_csv(models, listed.name)
    if listed.protocol == "ltsf":
        found, missing = find_data(listed, root)
        notes = _notes(listed, missing, root)
        score_sliding(
            models,
            _sliding_tasks(found),
            SlidingOptions(),
            csv_path,
            title=listed.title,
            notes=notes,
            batch_size=batch_size,
            device=device,
        )
    else:
        tasks, missing = tasks_of(suite, root)
        notes = _notes(listed, missing, root)
        score_tasks(
            models,
            tasks,
            csv_path,
            title=listed.title,
            metrics=listed.metrics,
            notes=notes,
            batch_size=batch_size,
            device=device,
        )
    return csv_path


def _notes(suite: Suite, missing: Sequence[MissingTask], root: Path) -> list[str]:
    """What is missing, as a note; an error where that is everything."""
    sentence = missing_sentence(suite, missing, root)
    if len(missing) == len(suite.tasks):
        raise ValueError(sentence)
    return [sentence] if sentence else []


def _sliding_tasks(found: Sequence[Found]) -> list[SlidingTask]:
    """Each CSV is read once, whatever the number of its horizons."""
    cutters: dict[tuple[Path, int], Callable[[int, int], SlidingWindows]] = {}
    tasks = []
    for one in found:
        (path,) = one.paths
        key = (path, one.task.season_length)
        if key not in cutters:
            cutters[key] = window_cutter(path, replace(SlidingOptions(), season_length=one.task.season_length or None))
        tasks.append(SlidingTask(one.task.name, path.stem, one.task.prediction_length, cutters[key], is_scaled=True))
    return tasks
