"""A study as a table: what its runs are, before they are trained, and how far they have come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from foreloom.lab.fit.parametric import FLOPS_PER_PARAMETER_TOKEN
from foreloom.lab.ladder import kin, num_trained
from foreloom.lab.study.execution import Status
from foreloom.lab.study.resolve import Planned
from foreloom.report.tables import Cell, Column, ScoreTable


def table_of(planned: Sequence[Planned], title: str) -> ScoreTable:
    """Every run's shape, size, length and rate."""
    names = ("Run", "Width", "Layers", "Heads", "N", "Without ends", "Tokens", "D / N", "Steps", "Rows", "Rate", "6ND")
    rows: list[list[Cell]] = []
    for one in planned:
        facts = one.facts
        N = facts["num_parameters"] if facts["n_convention"] == "total" else facts["num_non_embedding"]
        tokens = facts.get("planned_tokens")
        rows.append(
            [
                f"{one.folder}/{one.label}",
                *(_count(facts.get(name)) for name in ("hidden_dim", "num_layers", "num_heads")),
                _count(facts["num_parameters"]),
                _count(facts["num_non_embedding"]),
                _count(tokens),
                None if tokens is None else f"{tokens / N:.3g}",
                _count(facts["num_steps"]),
                _count(facts["effective_batch_size"]),
                f"{facts['learning_rate']:.4g}",
                None if tokens is None else f"{FLOPS_PER_PARAMETER_TOKEN * N * tokens:.3e}",
            ]
        )
    columns = [Column(name, "text" if name == "Run" else "count") for name in names]
    conventions = {one.facts["n_convention"] for one in planned}
    note = (
        f"N counts {' or '.join(sorted(conventions))} in D / N and 6ND; `Without ends` leaves out embeddings and head."
    )
    return ScoreTable(columns, rows, [], title, (note, *_of_ladders(planned)))


def _of_ladders(planned: Sequence[Planned]) -> list[str]:
    """What sharing the steps before cooldowns saves."""
    rungs = [(one, one.facts["num_steps"], one.facts["num_cooldown_steps"]) for one in planned]
    rungs = [rung for rung in rungs if rung[2]]
    if not rungs:
        return []
    shared = num_trained([((one.folder, kin(one.recipe, one.overrides)), *length) for one, *length in rungs])
    alone = sum(steps for _, steps, _ in rungs)
    saved = f"{shared:,} are trained, not {alone:,} ({shared / alone - 1:.0%})"
    return [f"Runs with a cooldown share the steps before: {saved}."]


def table_of_status(found: Iterable[Status], title: str) -> ScoreTable:
    """How far every run has come."""
    columns = [Column(name, "text") for name in ("Run", "State")]
    columns += [Column(name, "count") for name in ("Step", "Of", "Loss", "Validation")] + [Column("Last word", "text")]
    rows: list[list[Cell]] = [
        [
            f"{one.planned.folder}/{one.planned.label}",
            one.state,
            _count(one.step),
            _count(one.planned.facts["num_steps"]),
            None if one.loss is None else f"{one.loss:.4f}",
            None if one.validation_loss is None else f"{one.validation_loss:.4f}",
            one.words,
        ]
        for one in found
    ]
    return ScoreTable(columns, rows, [], title)


def _count(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"
