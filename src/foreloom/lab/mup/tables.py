"""What the lab says of a parametrization, as tables: rules by parameter, slopes by module, optima by width."""

from __future__ import annotations

import re
from collections.abc import Sequence

from foreloom.config.loader import Recipe
from foreloom.lab.mup.coordinates import Check
from foreloom.lab.mup.transfer import Basin, shift_of
from foreloom.models import registry
from foreloom.report.tables import Cell, Column, ScoreTable
from foreloom.run.parametrize import ParameterRow, explained
from foreloom.run.recipe import data_of


def rules_table(recipe: Recipe) -> ScoreTable:
    """Every parameter's kind, shape, initial standard deviation and multipliers; blocks that are alike share a line.

    ValueError where the recipe's family or model has no rules.
    """
    model, config, optimizer = (recipe.sections[name] for name in ("model", "parametrization", "optimizer"))
    family = registry.get(model.family)
    found = explained(family, model, data_of(recipe), config, optimizer)
    columns = [
        Column("parameter", "text"), Column("number", "count"), Column("kind", "text"), Column("shape", "text"),
        Column("initial std", "score"), Column("learning rate", "score"), Column("epsilon", "score"),
        Column("weight decay", "score"), Column("forward", "score"), Column("folded", "score"),
    ]  # fmt: skip
    like: dict[tuple[object, ...], list[ParameterRow]] = {}
    for row in found.rows.values():
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "*", row.name)
        like.setdefault((pattern, row._replace(name="")), []).append(row)
    cells: list[list[Cell]] = []
    for (pattern, _), members in like.items():
        row, trained = members[0], members[0].multipliers
        cells.append(
            [
                str(pattern) if len(members) > 1 else row.name, len(members), row.kind.value,
                "x".join(map(str, row.shape)), row.std, trained.learning_rate, trained.epsilon, trained.weight_decay,
                row.rule.forward, row.fold,
            ]
        )  # fmt: skip
    named = {"attention": "scores", "logits": "logits", "embedding": "embeddings", "branch": "residual branches"}
    beside = [f"{what} x {factor:.4g}" for name, what in named.items() if (factor := getattr(found.factors, name)) != 1]
    notes = (
        *([f"The forward's own factors change: {', '.join(beside)}."] if beside else []),
        "learning rate, epsilon and weight decay: multiples of the optimizer's, as the parameter is trained. forward: "
        "the rule's factor of what a matrix gives. folded: the factors that its values carry instead of the forward; "
        "its initial values, rate and epsilon are those of the folded matrix.",
    )
    base = "" if config.kind == "standard" else f", base width {config.base_width}"
    return ScoreTable(columns, cells, [], f"{recipe.path.stem}: {config.kind}{base}, {optimizer.name}", notes)


def check_table(checks: Sequence[Check]) -> ScoreTable:
    """Slopes by parametrization, module and step, and how each was judged: a head's change is what it learned."""
    columns = [
        Column("parametrization", "text"), Column("module", "text"), Column("step", "count"),
        Column("slope", "score"), Column("slope of change", "score"),
    ]  # fmt: skip
    rows: list[list[Cell]] = [
        [check.kind, one.module, one.step, one.slope, one.judged_slope] for check in checks for one in check.slopes
    ]
    first = checks[0]
    title = f"Slopes of log2 size on log2 {first.axis} ({', '.join(map(str, first.sizes))})"
    return ScoreTable(columns, rows, [], title, tuple(verdicts(checks)))


def verdicts(checks: Sequence[Check], most: int = 3) -> list[str]:
    """A sentence a parametrization, and the first of its failures."""
    sentences = []
    for check in checks:
        worst = check.worst()
        steepest = f"; the steepest is {worst.module}, {worst.judged_slope:+.2f}" if worst else ""
        sentences.append(f"{check.kind} {'passes' if check.passes else 'FAILS'} the coordinate check{steepest}.")
        sentences += [f"  {sentence}" for sentence in check.failures[:most]]
        if len(check.failures) > most:
            sentences.append(f"  and {len(check.failures) - most} modules more.")
    return sentences


def summary_table(checks: Sequence[Check]) -> ScoreTable:
    """The change of each module after the first and the last step, a column a parametrization."""
    last = max(one.step for one in checks[0].slopes)
    of = {(check.kind, one.module, one.step): one.judged_slope for check in checks for one in check.slopes}
    modules = list(dict.fromkeys(one.module for check in checks for one in check.slopes))
    columns = [Column("module", "text")]
    columns += [Column(f"{check.kind} step {step}", "score") for check in checks for step in sorted({1, last})]
    rows: list[list[Cell]] = [
        [module, *(of.get((check.kind, module, step)) for check in checks for step in sorted({1, last}))]
        for module in modules
    ]
    first = checks[0]
    title = f"How each module's change grows: slope on log2 {first.axis} ({', '.join(map(str, first.sizes))})"
    return ScoreTable(columns, rows, [], title, tuple(verdicts(checks)))


def transfer_table(basins: Sequence[Basin]) -> ScoreTable:
    """The best learning rate at each width, and by how many octaves it moves."""
    columns = [
        Column("parametrization", "text"), Column("width", "count"), Column("best log2 rate", "score"),
        Column("vertex", "score"), Column("loss", "score"), Column("loss at the first width's best", "score"),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    notes = []
    for kind in dict.fromkeys(one.kind for one in basins):
        own = [one for one in basins if one.kind == kind]
        rows += [[kind, one.width, float(one.best), one.vertex, one.loss, one.losses.get(own[0].best)] for one in own]
        notes.append(shift_of(own))
    return ScoreTable(columns, rows, [], "The best learning rate by width", tuple(notes))
