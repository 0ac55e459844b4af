"""`foreloom evaluate --tasks`: a model beside Seasonal Naive on the same tasks, as a table, a CSV and pictures."""

from __future__ import annotations

from pathlib import Path

from foreloom.evaluation.result import EvaluationResult
from foreloom.report.tables import BASELINE


def evaluate_and_tabulate(
    model: str | Path,
    tasks: str | Path,
    *,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    batch_size: int = 256,
    device: str = "auto",
) -> Path:
    """Score `model` and Seasonal Naive on the tasks of a YAML file; print the table, write CSV, Markdown and pictures.

    `out` is the CSV (default: evaluation/<tasks>.csv in the run folder where `model` is one, else
    <tasks>-scores.csv here); see `report.score_files.publish` for what lies beside it. Returns the CSV's path.
    Collective under torchrun: the ranks share the windows, rank 0 prints and writes. Raises ValueError, listing all
    that is wrong with the tasks, before anything is computed.
    """
    from foreloom.evaluation.baselines import SeasonalNaive
    from foreloom.evaluation.benchmark import evaluate
    from foreloom.evaluation.tasks import read_tasks
    from foreloom.forecast import from_pretrained
    from foreloom.report.score_files import default_csv, model_name, publish
    from foreloom.report.sharing import shared_by_ranks

    task_list = read_tasks(tasks, data_root)
    name = model_name(model)
    csv_path = Path(out) if out else default_csv(model, tasks)
    results: dict[str, EvaluationResult] = {}
    with shared_by_ranks() as sharing:
        forecaster = from_pretrained(model, device=device).forecaster
        for label, one in ((name, forecaster), (BASELINE, SeasonalNaive())):
            with sharing.progress(label) as progress:
                results[label] = evaluate(
                    one,
                    task_list,
                    batch_size=batch_size,
                    rank=sharing.rank,
                    world_size=sharing.world_size,
                    reduce=sharing.reduce,
                    progress=progress,
                )
        rows = [row for label, result in results.items() for row in result.rows(label)]
        examples = {task.name: task.examples for task in results[name].tasks}
        title = f"{name} on {Path(tasks).name}"
        sharing.on_rank_zero(lambda: publish(rows, examples, csv_path, sharing.console, title=title))
    return csv_path
