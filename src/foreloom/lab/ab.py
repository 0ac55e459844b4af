"""Which recipe is better? Two of them are trained on the same data, from several seeds each, scored on what both hold
out, and compared: for as many steps, and for as many FLOPs.

What is found goes to the console, and into the folder of the test: ab.md, ab.json, a picture, and every run.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from foreloom.config.loader import Recipe, flatten, plain
from foreloom.config.shipped import find_recipe
from foreloom.data.formats.reader import open_source
from foreloom.data.tables.options import TableOptions
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.skill import geometric_mean
from foreloom.evaluation.tasks import EvaluationTask, read_tasks
from foreloom.files import strict_json, write_text
from foreloom.forecast import from_pretrained
from foreloom.lab import runs, verdict
from foreloom.lab.runs import Outcome, Run, Size, say
from foreloom.lab.verdict import LOSS, WQL, Compared, Panel, Values
from foreloom.models import registry
from foreloom.models.family import Forecaster
from foreloom.monitoring.progress import Progress
from foreloom.report.style import save_figure
from foreloom.report.tables import Form, print_or_write
from foreloom.run import load
from foreloom.training.signals import StopRequest, exit_code

Equal = Literal["steps", "compute", "both"]
"""What the two recipes get the same of."""

SAME_DATA = (
    "sources", "context_length", "prediction_length", "min_past", "series_choice", "stride", "exclude",
)  # fmt: skip
"""Of `data`; the rest (normalization, groups, read-ahead) a recipe may choose with its model."""
SAME_VALIDATION = ("sources", "max_windows", "stride")
NUM_CURVE_POINTS = 20
"""Validations of a run whose recipe asks for none."""
MOST_SERIES = 20_000
"""Of a source that is scored without being asked for; more take longer than a comparison should."""
SCORES_NAME = "ab-scores.json"
"""In a run folder: WQL by task, beside the tasks it is of."""
MEBIBYTE = 2**20

Scores = Mapping[str, float]
"""Task -> WQL."""


@dataclass(frozen=True)
class Arm:
    """A recipe, trained for so long from every seed."""

    name: Literal["A", "B", "B-equal-compute"]
    num_steps: int
    title: str = ""
    """Of the comparison with A, which has none itself."""

    @property
    def is_of_b(self) -> bool:
        return self.name != "A"

    @property
    def is_equal_compute(self) -> bool:
        return self.name == "B-equal-compute"


@dataclass(frozen=True)
class ABTest:
    """Two recipes that can be compared, and what is to be trained of them."""

    recipes: tuple[Recipe, Recipe]
    names: tuple[str, str]
    sizes: tuple[Size, Size]
    arms: list[Arm]
    """A, then those of B."""
    runs: dict[tuple[Arm, int], Run]
    """By arm and seed, in the order they are trained."""
    tasks: list[EvaluationTask]
    out: Path


@dataclass(frozen=True)
class Result:
    """A finished run that has been scored."""

    arm: Arm
    seed: int
    outcome: Outcome
    values: Values


def compare_recipes(
    a: str | Path,
    b: str | Path,
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

    `overrides` are for both. `num_seeds` counts up from A's training.seed. `equal`: see `arms_of`. `tasks` is a file of
    tasks to score instead of what the recipes hold out. `out` is the folder (default: runs/ab-A-B); runs that lie there
    finished are taken as they are. The code is 1 where a training failed, or where `fail_if_worse` and B is worse
    beyond chance; 130 or 143 where it was told to stop. ValueError, before anything is trained, for recipes that cannot
    be compared.
    """
    if not importlib.util.find_spec("scipy"):
        raise ValueError("the intervals are of the package scipy, which is not installed: pip install 'foreloom[lab]'.")
    recipes = load(find_recipe(a).resolve(), overrides), load(find_recipe(b).resolve(), overrides)
    check_comparable(*recipes)
    stems = recipes[0].path.stem, recipes[1].path.stem
    folder = Path(out or Path("runs") / f"ab-{stems[0]}-{stems[1]}").resolve()
    task_list = read_tasks(tasks) if tasks else held_out_tasks(recipes[0])
    sizes = runs.size_of(recipes[0]), runs.size_of(recipes[1])
    arms = arms_of(*sizes, equal)
    first = recipes[0].sections["training"].seed
    planned = {
        (arm, seed): plan_run(arm, seed, recipes[arm.is_of_b], overrides, max(arm.num_steps for arm in arms), folder)
        for seed in range(first, first + num_seeds)
        for arm in arms  # in turn, so that what a machine does at a time of the day happens to A and B
    }
    test = ABTest(recipes, (f"A: {stems[0]}", f"B: {stems[1]}"), sizes, arms, planned, task_list, folder)
    with StopRequest() as stop:
        outcomes = runs.execute(list(planned.values()), folder, stop)
        if stop.signal_number:
            return exit_code(stop.signal_number)
    results, failures = _score(test, outcomes)
    compared = _compare(test, results)
    _publish(test, results, compared, failures, form)
    is_refused = fail_if_worse and any(one.is_worse for one in compared)
    return 1 if failures or is_refused else 0


def check_comparable(a: Recipe, b: Recipe) -> None:
    """ValueError, listing every difference, where the recipes do not train and validate on the same windows; and where
    they hold nothing out."""
    for recipe in (a, b):
        family = registry.get(recipe.sections["model"].family)
        if family.forecaster is None:
            raise ValueError(
                f"{recipe.path}: a model of the family {family.name} does not forecast, and an A/B test scores "
                "forecasts. Compare the validation losses of two runs in their reports."
            )
    lines = []
    for section, names in (("data", SAME_DATA), ("validation", SAME_VALIDATION)):
        of_a, of_b = (
            flatten({section: {name: plain(getattr(recipe.sections[section], name)) for name in names}})
            for recipe in (a, b)
        )
        lines += [
            f"  {key}: {of_a.get(key, 'not there')} in A, {of_b.get(key, 'not there')} in B"
            for key in dict.fromkeys([*of_a, *of_b])
            if of_a.get(key) != of_b.get(key)
        ]
    if lines:
        raise ValueError(
            "The two recipes do not have the same data, so their losses say nothing about each other:\n"
            + "\n".join(lines)
            + "\nMake these settings the same, or give them once for both, after the recipes: data.context_length=256"
        )
    if not a.sections["validation"].sources and not any(source.holdout for source in a.sections["data"].sources):
        length = a.sections["data"].prediction_length
        raise ValueError(
            "Nothing is held out to compare the recipes on. Set data.sources.0.holdout, the last steps of every series "
            f"that training leaves alone, to data.prediction_length ({length}) or more; or name data sets of their own "
            "in validation.sources."
        )


def is_loss_comparable(recipes: tuple[Recipe, Recipe], sizes: tuple[Size, Size]) -> bool:
    """Is the loss of the two the same quantity: of one family, in one unit, on values brought to the same scale?"""
    scales = [(r.sections["data"].normalization, r.sections["data"].normalization_scope) for r in recipes]
    units = [(r.sections["model"].family, size.loss_units) for r, size in zip(recipes, sizes, strict=True)]
    return scales[0] == scales[1] and units[0] == units[1]


def parse_equal(text: str) -> Equal:
    """What was typed; ValueError for anything else."""
    for known in get_args(Equal):
        if text == known:
            return known
    raise ValueError(f"--equal {text!r}: expected {', '.join(get_args(Equal))}.")


def steps_at_equal_compute(a: Size, b: Size) -> int:
    """The steps of B that A's FLOPs pay for, to the nearest, 1 at least."""
    return max(round(a.num_steps * a.flops_per_step / b.flops_per_step), 1)


def arms_of(a: Size, b: Size, equal: Equal) -> list[Arm]:
    """A, the yardstick, is trained for its recipe's steps; B for as many, for as many as A's FLOPs pay for, or both."""
    num_steps = steps_at_equal_compute(a, b)
    if num_steps == a.num_steps:
        return [Arm("A", num_steps), Arm("B", num_steps, "At equal steps, to the nearest step equal compute")]
    of_steps = Arm("B", a.num_steps, "At equal steps")
    of_compute = Arm("B-equal-compute", num_steps, "At equal compute")
    chosen = {"steps": [of_steps], "compute": [of_compute], "both": [of_steps, of_compute]}
    return [Arm("A", a.num_steps), *chosen[equal]]


def plan_run(arm: Arm, seed: int, recipe: Recipe, common: Sequence[str], longest: int, folder: Path) -> Run:
    """A run below `folder`: the recipe with the user's `common` settings, then those of the arm and the seed.

    Where the recipe measures no validation loss it gets `NUM_CURVE_POINTS` of them over `longest` steps.
    """
    own = [f"training.steps={arm.num_steps}", f"training.seed={seed}"]
    if recipe.sections["training"].epochs is not None:
        own.insert(0, "training.epochs=null")
    if not recipe.sections["validation"].steps:
        own.append(f"validation.steps={max(longest // NUM_CURVE_POINTS, 1)}")
    return runs.plan(recipe.path, [*common, *own], folder / f"{arm.name}-seed-{seed}")


def held_out_tasks(recipe: Recipe) -> list[EvaluationTask]:
    """The last window of every series of each source that holds something out; of `validation.sources` where given.

    The horizon is data.prediction_length, shorter where less is held out. ValueError for a source of very many series.
    """
    data, validation = recipe.sections["data"], recipe.sections["validation"]
    sources = validation.sources or [source for source in data.sources if source.holdout]
    stems = [Path(source.path).stem for source in sources]
    tasks = []
    for source, stem in zip(sources, stems, strict=True):
        num_series = len(open_source(source.path, table=source.table or TableOptions()))
        if num_series > MOST_SERIES:
            raise ValueError(
                f"{source.path} has {num_series:,} series, too many to forecast each of them; name tasks with --tasks "
                "(a list of data sets, horizons and windows, see docs/evaluation.md)."
            )
        tasks.append(
            EvaluationTask(
                name=stem if stems.count(stem) == 1 else source.path,
                path=Path(source.path),
                table=source.table,
                prediction_length=min(data.prediction_length, source.holdout or data.prediction_length),
            )
        )
    return tasks


def score_run(folder: Path, tasks: Sequence[EvaluationTask], device: str) -> Scores:
    """The WQL of a finished run on each task; what an earlier call has found for the same tasks and data is kept."""
    described = [
        {
            **vars(task),
            "table": task.table and vars(task.table),
            "fingerprints": [one.fingerprint for one in task.open()],
        }
        for task in tasks
    ]
    described = json.loads(json.dumps(strict_json(described)))
    path = folder / SCORES_NAME
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["tasks"] == described:
            return known["wql"]
    with Progress(f"scoring {folder.name}") as progress:
        scores = score(from_pretrained(folder, device=device).forecaster, tasks, progress)
    write_text(path, json.dumps({"tasks": described, "wql": scores}, indent=1))
    return scores


def score(forecaster: Forecaster, tasks: Sequence[EvaluationTask], progress: Progress | None = None) -> Scores:
    """Tasks without a label to be scored on are left out."""
    found = {task.name: task.scores["WQL"] for task in evaluate(forecaster, tasks, progress=progress).tasks}
    return {task: wql for task, wql in found.items() if math.isfinite(wql)}


def summary(scores: Scores, baseline: Scores) -> dict[str, float]:
    """The mean WQL over tasks, and the geometric mean of WQL over the baseline's where that errs at all."""
    ratios = [wql / baseline[task] for task, wql in scores.items() if baseline[task]]
    relative = {"wql_relative": geometric_mean(ratios)} if ratios else {}
    return {WQL: sum(scores.values()) / len(scores), **relative} if scores else {}


def values_of(outcome: Outcome, scores: Scores, *, window_length: int) -> Values:
    """The measures of a finished run; time steps are those of full windows, context and horizon."""
    assert outcome.num_rows and outcome.flops and outcome.num_parameters and outcome.training_seconds
    rows_per_second = outcome.num_rows / outcome.training_seconds
    values = {
        LOSS: outcome.loss,
        **scores,
        "num_steps": outcome.num_steps,
        "tera_flops": outcome.flops / 1e12,
        "million_parameters": outcome.num_parameters / 1e6,
        "training_seconds": outcome.training_seconds,
        "rows_per_second": rows_per_second,
        "time_steps_per_second": rows_per_second * window_length,
        "peak_mebibytes": outcome.peak_bytes / MEBIBYTE if outcome.peak_bytes else None,
        "device_peak_mebibytes": outcome.device_peak_bytes / MEBIBYTE if outcome.device_peak_bytes else None,
        **{name: outcome.figures.get(name) for name in ("expert_entropy", "dead_experts")},
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def notes_of(recipes: tuple[Recipe, Recipe], sizes: tuple[Size, Size]) -> list[str]:
    """What a reader of the tables must know."""
    a, b = sizes
    notes = [f"A step of B costs {b.flops_per_step / a.flops_per_step:.3g} of A's FLOPs."]
    if a.num_steps != b.num_steps:
        notes.append(f"B's recipe says {b.num_steps:,} steps; A's {a.num_steps:,} are the yardstick here.")
    if not is_loss_comparable(recipes, sizes):
        why = "another family or normalization, other quantile levels, horizons or tokens"
        notes.append(f"The losses are different quantities ({why}): WQL decides.")
    return notes


def _score(test: ABTest, outcomes: Sequence[Outcome]) -> tuple[list[Result], list[str]]:
    """The finished runs in numbers, and what went wrong with the others."""
    by_name = {outcome.name: outcome for outcome in outcomes if outcome.status == "finished"}
    failures = [outcome.error for outcome in outcomes if outcome.status == "failed"]
    baseline = score(SeasonalNaive(), test.tasks) if by_name else {}
    results = []
    for (arm, seed), run in test.runs.items():
        if (outcome := by_name.get(run.name)) is None:
            continue
        data, training = run.recipe.sections["data"], run.recipe.sections["training"]
        try:
            scores = summary(score_run(run.folder, test.tasks, training.device), baseline)
            if outcome.loss is None:
                raise ValueError(f"loss not finite; see {run.folder}/training.log")
        except ValueError as error:
            failures.append(f"{run.name}: {error}")
            say(failures[-1])
            continue
        values = values_of(outcome, scores, window_length=data.context_length + data.prediction_length)
        results.append(Result(arm, seed, outcome, values))
    return results, failures


def _compare(test: ABTest, results: Sequence[Result]) -> list[Compared]:
    values = {arm: {one.seed: one.values for one in results if one.arm == arm} for arm in test.arms}
    a, *arms_of_b = test.arms
    return [
        verdict.compare(
            f"{arm.title}: {a.num_steps:,} steps of A, {arm.num_steps:,} of B",
            test.names,
            values[a],
            values[arm],
            loss_is_same=is_loss_comparable(test.recipes, test.sizes),
        )
        for arm in arms_of_b
    ]


def _publish(
    test: ABTest, results: Sequence[Result], compared: Sequence[Compared], failures: Sequence[str], form: Form | None
) -> None:
    notes = notes_of(test.recipes, test.sizes)
    if failures:
        notes.append(f"{len(failures)} of {len(test.runs)} runs failed or diverged: this is of the others.")
    tables = [verdict.table_of(one, notes) for one in compared]
    page = [f"# {test.names[0]} and {test.names[1]}\n", *(table.render("markdown") for table in tables)]
    if results:
        of_a, *of_b = ([one.outcome for one in results if one.arm == arm] for arm in test.arms)
        panels = [
            Panel(
                f"Held-out loss, {arm.title[0].lower()}{arm.title[1:].partition(',')[0]}",
                of_a,
                runs_of_b,
                arm.is_equal_compute,
                test.names,
            )
            for arm, runs_of_b in zip(test.arms[1:], of_b, strict=True)
        ]
        figure = verdict.loss_figure(panels)
        for ending in ("svg", "png"):
            save_figure(figure, test.out / f"ab.{ending}")
        page.append("![held-out loss](ab.svg)\n")
    page += [f"```text\n{failure}\n```\n" for failure in failures]
    write_text(test.out / "ab.md", "\n".join(page))
    write_text(test.out / "ab.json", json.dumps(strict_json(_data(test, results, compared, failures)), indent=1))
    for table in tables:
        print_or_write(table, form, None)
    say(f"wrote {test.out}/ab.md and ab.json" + (", ab.svg and ab.png" if results else ""))


def _data(
    test: ABTest, results: Sequence[Result], compared: Sequence[Compared], failures: Sequence[str]
) -> dict[str, Any]:
    return {
        "recipes": {"A": str(test.recipes[0].path), "B": str(test.recipes[1].path)},
        "tasks": [task.name for task in test.tasks],
        "comparisons": [verdict.as_data(one) for one in compared],
        "runs": [
            {
                "name": one.outcome.name,
                "arm": one.arm.name,
                "seed": one.seed,
                **one.values,
                "figures": one.outcome.figures,
                "curve": [{"step": step, LOSS: loss} for step, loss in one.outcome.curve],
            }
            for one in results
        ],
        "failures": failures,
    }
