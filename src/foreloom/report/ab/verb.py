"""`foreloom report ab`: train two recipes on the same data, several times each, and say which is better.

What is said goes to the console, and into the folder of the test: ab.md, ab.json, a picture, and every run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foreloom import run
from foreloom.config.loader import Recipe, find_recipe
from foreloom.evaluation.tasks import EvaluationTask, read_tasks
from foreloom.files import strict_json, write_text
from foreloom.monitoring.console import duration
from foreloom.report.ab import plan, table
from foreloom.report.ab.figure import loss_figure
from foreloom.report.ab.measures import LOSS, Measured, measure
from foreloom.report.ab.plan import Comparison, Equal, Size
from foreloom.report.ab.scores import held_out_tasks, score_baseline, score_run, summary
from foreloom.report.ab.size import sizes
from foreloom.report.ab.training import Job, job_of, state_of, train
from foreloom.report.style import save_figure
from foreloom.report.tables import Form, print_or_write
from foreloom.training.signals import StopRequest, exit_code


@dataclass(frozen=True)
class Prepared:
    """Two recipes that can be compared, and what is to be trained of them."""

    recipes: tuple[Recipe, Recipe]
    names: tuple[str, str]
    sizes: tuple[Size, Size]
    compared: dict[Comparison, int]
    """With the steps of B."""
    jobs: list[Job]
    tasks: list[EvaluationTask]
    out: Path


def compare_recipes(
    a: str,
    b: str,
    *,
    overrides: Sequence[str] = (),
    num_seeds: int = 3,
    equal: Equal = "both",
    tasks: str | Path | None = None,
    out: str | Path | None = None,
    form: Form | None = None,
    fail_if_worse: bool = False,
) -> int:
    """Run the test of recipes `a` and `b` and tell what it found; the exit code.

    `overrides` are for both. `num_seeds` counts up from A's training.seed. `equal`: see `plan.comparisons`. `tasks` is
    a file of tasks to score instead of what the recipes hold out. `out` is the folder (default: runs/ab-A-B); runs
    that lie there finished are taken as they are. The code is 1 where a training failed, or where `fail_if_worse` and B
    is worse beyond chance; 130 or 143 where it was told to stop. ValueError, before anything is trained, for recipes
    that cannot be compared.
    """
    test = prepare(a, b, overrides=overrides, num_seeds=num_seeds, equal=equal, tasks=tasks, out=out)
    failures: list[str] = []
    finished: list[Job] = []
    with StopRequest() as stop:
        for number, job in enumerate(test.jobs, start=1):
            _say(f"[{number}/{len(test.jobs)}] {job.training.name}: {job.training.num_steps:,} steps")
            began = time.perf_counter()
            outcome = train(job, stop)
            if stop.signal_number:
                _say("stopped; the same command goes on from here")
                return exit_code(stop.signal_number)
            if outcome.failure:
                _say(outcome.failure)
                failures.append(outcome.failure)
            else:
                finished.append(job)
                took = f"finished after {duration(time.perf_counter() - began)}"
                _say("  was there already" if outcome.was_there else f"  {took}")
    measured = _measure(test, finished, failures)
    results = _results(test, measured)
    _publish(test, measured, results, failures, form)
    is_refused = fail_if_worse and any(result.is_worse for result in results)
    return 1 if failures or is_refused else 0


def prepare(
    a: str,
    b: str,
    *,
    overrides: Sequence[str],
    num_seeds: int,
    equal: Equal,
    tasks: str | Path | None,
    out: str | Path | None,
) -> Prepared:
    """Everything that can be known, and refused, before the first training; see `compare_recipes`."""
    paths = [find_recipe(name).resolve() for name in (a, b)]
    recipes = (run.load(paths[0], overrides), run.load(paths[1], overrides))
    plan.check_comparable(*recipes)
    stems = [path.stem for path in paths]
    names = [f"{letter}: {stem}" for letter, stem in zip("AB", stems, strict=True)]
    folder = Path(out or Path("runs") / f"ab-{stems[0]}-{stems[1]}").resolve()
    task_list = read_tasks(tasks) if tasks else held_out_tasks(recipes[0])
    of_a, of_b = sizes(recipes)
    compared = plan.comparisons(of_a, of_b, equal)
    longest = max(of_a.num_steps, *compared.values())
    seed = recipes[0].sections["training"].seed
    jobs = []
    for training in plan.trainings(of_a, compared, range(seed, seed + num_seeds)):
        path, recipe = (paths[1], recipes[1]) if training.is_of_b else (paths[0], recipes[0])
        jobs.append(job_of(training, path, plan.overrides_of(training, recipe, overrides, longest), folder))
    for job in jobs:
        state_of(job)
    return Prepared(recipes, (names[0], names[1]), (of_a, of_b), compared, jobs, task_list, folder)


def _say(sentence: str) -> None:
    """How it goes; stdout is for the tables."""
    print(sentence, file=sys.stderr, flush=True)


def _measure(test: Prepared, finished: Sequence[Job], failures: list[str]) -> list[Measured]:
    """The finished runs in numbers; what is wrong with one joins `failures`."""
    if not finished:
        return []
    baseline = score_baseline(test.tasks)
    measured = []
    for job in finished:
        size = test.sizes[job.training.is_of_b]
        try:
            scores = score_run(job.folder, test.tasks, job.recipe.sections["training"].device)
            measured.append(measure(job, size.num_parameters, summary(scores, baseline)))
        except ValueError as error:
            failures.append(f"{job.training.name}: {error}")
            _say(failures[-1])
    return measured


def _results(test: Prepared, measured: Sequence[Measured]) -> list[table.Compared]:
    def by_seed(arm: plan.Arm) -> Mapping[int, Measured]:
        return {one.job.training.seed: one for one in measured if one.job.training.arm == arm}

    return [
        table.compare(
            f"{one.title}: {test.sizes[0].num_steps:,} steps of A, {num_steps:,} of B",
            test.names,
            by_seed("A"),
            by_seed(one.arm),
            loss_is_same=plan.is_loss_comparable(test.recipes, test.sizes),
        )
        for one, num_steps in test.compared.items()
    ]


def _publish(
    test: Prepared,
    measured: Sequence[Measured],
    results: Sequence[table.Compared],
    failures: Sequence[str],
    form: Form | None,
) -> None:
    notes = _notes(test)
    tables = [table.table_of(result, notes) for result in results]
    heading = f"# {test.names[0]} and {test.names[1]}\n"
    pictures = []
    if measured:
        figure = loss_figure(test.compared, measured)
        for ending in ("svg", "png"):
            save_figure(figure, test.out / f"ab.{ending}")
        pictures = ["![held-out loss](ab.svg)\n"]
    failed = [f"```text\n{failure}\n```\n" for failure in failures]
    write_text(
        test.out / "ab.md", "\n".join([heading, *(one.render("markdown") for one in tables), *pictures, *failed])
    )
    write_text(test.out / "ab.json", json.dumps(strict_json(_data(test, measured, results, failures)), indent=1))
    for titled in tables:
        print_or_write(titled, form, None)
    _say(f"wrote {test.out}/ab.md and ab.json" + (", ab.svg and ab.png" if measured else ""))


def _notes(test: Prepared) -> list[str]:
    a, b = test.sizes
    notes = [f"A step of B costs {b.flops_per_step / a.flops_per_step:.3g} of A's FLOPs."]
    if (note := plan.own_steps_note(a, b)) is not None:
        notes.append(note)
    if not plan.is_loss_comparable(test.recipes, test.sizes):
        why = "another family or normalization, other quantile levels, horizons or tokens"
        notes.append(f"The losses are different quantities ({why}): WQL decides.")
    return notes


def _data(
    test: Prepared, measured: Sequence[Measured], results: Sequence[table.Compared], failures: Sequence[str]
) -> dict[str, object]:
    return {
        "recipes": {"A": str(test.recipes[0].path), "B": str(test.recipes[1].path)},
        "tasks": [task.name for task in test.tasks],
        "comparisons": [table.as_data(result) for result in results],
        "runs": [
            {
                "name": one.job.training.name,
                "arm": one.job.training.arm,
                "seed": one.job.training.seed,
                **one.values,
                "figures": one.figures,
                "curve": [{"step": step, LOSS: loss} for step, loss in one.curve.items()],
            }
            for one in measured
        ],
        "failures": failures,
    }
