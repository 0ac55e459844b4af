"""A suite's published leaderboard, with one's own models among the published ones.

Axes: T tasks, M models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from foreloom.evaluation import skill, suites
from foreloom.evaluation.published import TRAINED_ON, published_rows
from foreloom.evaluation.skill import BASELINE, ErrorTable
from foreloom.evaluation.suites import Suite
from foreloom.report.evaluation_table import finite
from foreloom.report.scores import ModelScores, by_model, find_metric, nearest, read_scores, trained_on
from foreloom.report.tables import Cell, Column, ScoreTable

_BOARDS = {"relative": "chronos", "skill": "fev-bench", "rank": "gift-eval"}
_DONOR = "Chronos-Bolt"
"""The model whose errors fev-bench gives to those that were trained on a task's data."""
_OWN = "{} (yours)"
_CLOSE = 0.005
"""Relative difference of one's own Seasonal Naive from the published one that rounding may make."""


def leaderboard(suite: str, results: Sequence[str | Path] = (), *, metric: str | None = None) -> ScoreTable:
    """The published models of a suite and those of one's own score files, best first, by the suite's definitions.

    Chronos: geometric means of the errors over Seasonal Naive's. fev-bench: skill and win rate with 95 % intervals.
    GIFT-Eval: geometric means and the mean rank. `metric` is the one that ranks (default: the suite's first). Where an
    own model lacks tasks, the board is over those that all own models have, and a note says so. Raises ValueError for
    an unknown suite or metric, for results without a task of the suite, and where no task is left.
    """
    listed = suites.load(suite)
    if listed.protocol != "windows":
        raise ValueError(f"{listed.name}: no results per task are published for this suite, so it has no board.")
    published: dict[str, ModelScores] = {}
    leaked: set[tuple[str, str]] = set()
    for row in published_rows(_BOARDS[listed.ranking]):
        published.setdefault(row["model"], {})[row["task"]] = {name: row[name] for name in listed.metrics}
        if row.get(TRAINED_ON):
            leaked.add((row["task"], row["model"]))
    metrics = _ranked_first(listed, metric)
    own, notes = _own_models(listed, results, metrics, published[BASELINE])
    tasks = [
        task
        for task in _board_order(listed)
        if all(np.isfinite(scores.get(task, {}).get(name, np.nan)) for scores in own.values() for name in metrics)
    ]
    if not tasks:
        raise ValueError(
            f"{listed.name}: no task has {' and '.join(metrics)} of {', '.join(own)} all together, so there is no "
            "board to show them on. Give one result at a time, or score them on the same tasks."
        )
    if len(tasks) < len(listed.tasks):
        notes.insert(
            0, f"Over the {len(tasks)} of {len(listed.tasks)} tasks that your results have: {', '.join(tasks)}."
        )
    models = {**published, **{_OWN.format(name): scores for name, scores in own.items()}}
    leaked |= {(task, _OWN.format(name)) for name, scores in own.items() for task in trained_on(scores)}
    tables = {
        name: ErrorTable.of(
            {model: {task: scores[name] for task, scores in of.items()} for model, of in models.items()}, tasks
        )
        for name in metrics
    }
    build = {"relative": _relative_board, "rank": _rank_board, "skill": _skill_board}[listed.ranking]
    table, explained = build(tables, leaked)
    return replace(table, title=f"{listed.title}: {metrics[0]}", notes=(explained, *notes))


def _relative_board(tables: dict[str, ErrorTable], _: object) -> tuple[ScoreTable, str]:
    columns = [Column(f"{metric} relative", "relative", metric) for metric in tables]
    values = [skill.geometric_means(skill.relative(table, BASELINE).error_TM) for table in tables.values()]
    return _sorted(tables, columns, values), (
        f"Geometric means over tasks of the error divided by that of {BASELINE}; lower is better."
    )


def _rank_board(tables: dict[str, ErrorTable], _: object) -> tuple[ScoreTable, str]:
    board, explained = _relative_board(tables, _)
    first, table = next(iter(tables.items()))
    ranks = dict(zip(table.models, skill.mean_ranks(table.error_TM).tolist(), strict=True))
    columns = [board.columns[0], Column(f"{first} mean rank", "score", first), *board.columns[1:]]
    rows: list[list[Cell]] = [[row[0], ranks[str(row[0])], *row[1:]] for row in board.rows]
    rows.sort(key=lambda row: row[1])  # type: ignore[arg-type, return-value]
    return ScoreTable(
        columns, rows, []
    ), f"{explained} Mean rank: of the models on this board, task by task; 1 is best."


def _skill_board(tables: dict[str, ErrorTable], leaked: set[tuple[str, str]]) -> tuple[ScoreTable, str]:
    first, *others = tables
    ratios = {metric: _fev_ratios(table, leaked) for metric, table in tables.items()}
    skills = skill.bootstrap(ratios[first], skill.skills)
    wins = skill.bootstrap(ratios[first], skill.win_rates)
    ends = {"": "estimate", " from": "lower", " to": "upper"}
    columns = [Column(f"{first} {name} %{end}", "score", first) for name in ("skill", "wins") for end in ends] + [
        Column(f"{metric} skill %", "score", metric) for metric in others
    ]
    values = [100 * getattr(interval, end) for interval in (skills, wins) for end in ends.values()]
    values += [100 * skill.skills(ratios[metric]) for metric in others]
    board = _sorted(tables, columns, values, best="largest")
    return board, (
        f"Skill: 1 - geometric mean of the error divided by that of {BASELINE}, clipped to 0.01 to 100; wins: share of "
        "tasks and rivals with the smaller error; from, to: the 95 % interval of a bootstrap over tasks, of "
        f"{skill.FEWEST_TASKS} at least. A model that "
        f"was trained on a task's data has the error of {_DONOR} there, a failed one that of {BASELINE}."
    )


def _fev_ratios(table: ErrorTable, leaked: set[tuple[str, str]]) -> np.ndarray:
    leaked_TM = np.array([[(task, model) in leaked for model in table.models] for task in table.tasks])
    return skill.fev_ratios(table, BASELINE, leaked_TM=leaked_TM, donor=_DONOR).error_TM


def _sorted(
    tables: dict[str, ErrorTable], columns: list[Column], values: Sequence[np.ndarray], *, best: str = "smallest"
) -> ScoreTable:
    """A row a model, by the first column of values."""
    models = next(iter(tables.values())).models
    order = np.argsort(values[0] if best == "smallest" else -values[0], kind="stable")
    rows: list[list[Cell]] = [[models[m], *(finite(float(column[m])) for column in values)] for m in order]
    return ScoreTable([Column("Model", "text"), *columns], rows, [])


def _ranked_first(suite: Suite, metric: str | None) -> tuple[str, ...]:
    if metric is None:
        return suite.metrics
    named = next((name for name in suite.metrics if name.casefold() == metric.casefold()), None)
    if named is None:
        hint = nearest(metric, suite.metrics)
        raise ValueError(f"{suite.name}: no metric {metric!r}.{hint} The board has {', '.join(suite.metrics)}.")
    return (named, *(name for name in suite.metrics if name != named))


def _board_order(suite: Suite) -> list[str]:
    """The order in which fev sorts its tasks: the draws of its bootstrap, and so the intervals, depend on it."""
    tasks = suite.tasks
    if suite.ranking == "skill":
        tasks = tuple(sorted(tasks, key=lambda t: (t.config, t.prediction_length, t.season_length, t.targets)))
    return [task.name for task in tasks]


def _own_models(
    suite: Suite, results: Sequence[str | Path], metrics: Sequence[str], published_baseline: ModelScores
) -> tuple[dict[str, ModelScores], list[str]]:
    """The models of score files but the baseline, and notes on what is not as published."""
    files = [read_scores(path) for path in results]
    for name in metrics if files else ():
        find_metric(name, files)
    models = by_model(files, BASELINE)
    ours = models.pop(BASELINE, {})
    known = [task.name for task in suite.tasks]
    for name, scores in models.items():
        if not set(scores) & set(known):
            task = next(iter(scores))
            raise ValueError(
                f"{name} has no score of a task of {suite.name}: {task!r} is none of its tasks.{nearest(task, known)}"
            )
    notes = []
    for task in known:
        for metric in metrics:
            value, reference = ours.get(task, {}).get(metric), published_baseline.get(task, {}).get(metric)
            # Seasonal Naive of other tools may forecast a distribution: only the point metric must agree.
            if metric == "MASE" and value is not None and reference and abs(value / reference - 1) > _CLOSE:
                notes.append(
                    f"Your {BASELINE} has MASE {value:.4g} on {task}, the published one {reference:.4g}: your data or "
                    "windows are others."
                )
    return models, notes
