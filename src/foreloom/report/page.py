"""report.html: one page a run, self-contained, made from what lies in the run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreloom.evaluation.skill import BASELINE
from foreloom.files import write_text
from foreloom.monitoring.console import duration
from foreloom.monitoring.health import lay_out
from foreloom.monitoring.meters import Meters
from foreloom.monitoring.metrics_file import OtherMetricsError
from foreloom.report.curves import benchmark_figures, training_figures
from foreloom.report.evaluation_table import table_of
from foreloom.report.html import document, escape, fact_cards, grid, image, pictures, value_text
from foreloom.report.run_folder import RunFolder, read_run_folder
from foreloom.report.tables import Cell, Column, ScoreTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_NAME = "report.html"
SHOWN_ELSEWHERE = ("validation", "benchmark", "health", "continuation")
"""Kinds of events with a section of their own."""

METRIC_WORDS = {
    "WQL": "WQL: the error of the forecast's quantiles over the size of what came.",
    "MASE": "MASE: the error of the median over that of a seasonal naive forecast in the series' own past.",
    "coverage_80": "Coverage: the share of what came that lies in the central 50, 80 and 90 % of the forecast.",
}
"""What a reader of a table of scores may not know."""


def write_page(run_dir: str | Path) -> Path:
    """Write `<run_dir>/report.html` from what the run has left so far, whole or not at all; its path is returned.

    The page needs nothing outside it. Raises ValueError where the folder is not that of a run, or another version of
    foreloom wrote it.
    """
    run = read_run_folder(run_dir)
    path = run.path / PAGE_NAME
    write_text(path, page(run))
    return path


def page(run: RunFolder) -> str:
    """The page as HTML."""
    name = run.path.resolve().name
    tables = {title: table_of(rows) for title, rows in run.evaluations.items()}
    sections = {
        "Training": _figures(training_figures(run)),
        "Continuations": _continuations(run),
        "Benchmark during training": _benchmark(run),
        "Evaluation": "".join(_scores(title, table) for title, table in tables.items()),
        "Forecasts": pictures((path.read_bytes(), path.suffix, _title(path.stem)) for path in run.pictures),
        "Health": _health(run),
        "Set-up": _setup(run),
        "What happened": _events(run),
        "Checkpoints": _checkpoints(run),
        "How to reproduce": _reproduce(run),
        "Environment": _environment(run.environment),
    }
    body = "".join(f"<section><h2>{title}</h2>{content}</section>\n" for title, content in sections.items() if content)
    header = f'<p class="muted">{escape(_state(run))}</p>\n{_facts(run, tables)}\n'
    return document(name, header, body)


def _newest_session(run: RunFolder) -> Mapping[str, Any]:
    """The newest of start and finish tells whether the run has ended; a killed run looks as one that goes on."""
    return next((event for event in reversed(run.metrics.events) if event["kind"] in ("start", "finish")), {})


def _end(run: RunFolder) -> Mapping[str, Any]:
    """The rows of the end box; none of a run that has not ended."""
    return _newest_session(run).get("result") or {}


def _state(run: RunFolder) -> str:
    newest = _newest_session(run)
    last_step = run.metrics.steps[-1]["step"] if run.metrics.steps else 0
    if newest and newest["kind"] == "finish":
        return f"{newest['sentence']} {_date(newest)}"
    return f"Not finished: the newest log line is that of step {last_step:,}."


def _facts(run: RunFolder, tables: Mapping[str, ScoreTable]) -> str:
    facts: list[tuple[str, str]] = []
    if run.metrics.steps:
        first, last = run.metrics.steps[0], run.metrics.steps[-1]
        facts += [
            ("steps", f"{last['step']:,}"),
            ("rows", f"{last['num_rows']:,}"),
            ("time", _end(run).get("time") or duration(last["seconds"])),
            ("loss, first to last", f"{_loss(first)} → {_loss(last)}"),
        ]
    for title, table in tables.items():
        where = f", {title}" if len(tables) > 1 else ""
        means = [_relative_means(table, row) for row in table.summary]
        first_model = next((of_model for of_model in means if of_model), {})
        facts += [(f"{metric} relative to {BASELINE}{where}", f"{mean:.3f}") for metric, mean in first_model.items()]
    tiles = [f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for label, value in facts]
    return f'<div class="facts">{"".join(tiles)}</div>' if tiles else ""


def _relative_means(table: ScoreTable, row: Sequence[Cell]) -> dict[str, float]:
    """Metric -> relative score of a summary row."""
    pairs = zip(table.columns, row, strict=True)
    return {column.metric: mean for column, mean in pairs if column.kind == "relative" and isinstance(mean, float)}


def _figures(figures: Mapping[str, Figure]) -> str:
    from foreloom.report.style import figure_svg

    return grid("".join(image(figure_svg(figure).encode(), ".svg", alt) for alt, figure in figures.items()))


def _continuations(run: RunFolder) -> str:
    """How the model went on with each prompt, from its first weights to its last."""
    of_prompt: dict[str, dict[int, str]] = {}
    for event in run.metrics.events:
        if event["kind"] == "continuation":
            of_prompt.setdefault(event["prompt"], {})[event["step"]] = event["text"]
    return grid(
        "".join(
            f'<div class="card wide"><h3>{escape(prompt)}</h3><ol class="events">'
            + "".join(
                f"<li><span>step {step:,}</span><div>{escape(text)}</div></li>" for step, text in sorted(texts.items())
            )
            + "</ol></div>"
            for prompt, texts in of_prompt.items()
        )
    )


def _benchmark(run: RunFolder) -> str:
    """The history, and the newest scores of each tier task by task."""
    newest = {record["tier"]: record for record in run.benchmarks}
    cards = []
    for tier, record in newest.items():
        of_task = next(iter(record["tasks"].values()))
        columns = [Column("Task", "text"), *(Column(metric.upper(), "score", metric) for metric in of_task)]
        rows: list[list[Cell]] = [[task, *(its[metric] for metric in of_task)] for task, its in record["tasks"].items()]
        table = ScoreTable(columns, rows, [["Average", *(record["scores"][metric] for metric in of_task)]])
        best = (
            f"Best {record['metric']} so far: {value_text(record['best_score'])} at step {record['best_step']:,}. "
            f"Benchmarks took {record['training_share']:.1%} of the time."
        )
        title = f"{tier.capitalize()} tier after step {record['step']:,}"
        cards.append(
            f'<div class="card"><h3>{escape(title)}</h3><div class="scroll">{table.to_html()}</div>'
            f'<p class="note">{escape(best)} {_in_words(map(str.upper, of_task))}</p></div>'
        )
    return _figures(benchmark_figures(run)) + grid("".join(cards), "below")


def _health(run: RunFolder) -> str:
    """The newest health report, a card a section."""
    reports = run.newest_events("health")
    if not reports:
        return ""
    meters = Meters()
    try:
        meters.load_state_dict(reports[-1]["meters"])
    except (KeyError, TypeError) as error:
        raise OtherMetricsError(run.path, f"its health reports hold something else ({error})") from error
    return grid(fact_cards(lay_out(meters, reports[-1]["total_steps"])), "narrow")


def _scores(title: str, table: ScoreTable) -> str:
    note = f" Relative: divided by the score of {BASELINE}; below 1 is better." if table.is_relative else ""
    words = _in_words(column.metric for column in table.columns)
    return (
        f'<div class="card"><h3>{escape(_title(title))}</h3><div class="scroll">{table.to_html()}</div>'
        f'<p class="note">Lower scores are better.{note} {words}</p></div>'
    )


def _in_words(metrics: Iterable[str]) -> str:
    """What the metrics of a table are."""
    return escape(" ".join(METRIC_WORDS[metric] for metric in dict.fromkeys(metrics) if metric in METRIC_WORDS))


def _setup(run: RunFolder) -> str:
    """The boxes of the newest start banner (model, optimization, distributed, data)."""
    banner = next((event["banner"] for event in reversed(run.metrics.events) if event["kind"] == "start"), {})
    return grid(fact_cards(banner))


def _events(run: RunFolder) -> str:
    items = "".join(
        f'<li class="{escape(event["level"])}"><span title="{escape(event["time"])}">step {event["step"]:,}</span>'
        f"<div>{escape(event['sentence'])}</div></li>"
        for event in run.metrics.events
        if event["kind"] not in SHOWN_ELSEWHERE
    )
    return f'<div class="card events-box"><ol class="events">{items}</ol></div>' if items else ""


def _checkpoints(run: RunFolder) -> str:
    if not run.manifests:
        return ""
    scores = sorted({name for manifest in run.manifests for name in manifest.get("scores") or {}})
    head = "".join(f"<th>{escape(name)}</th>" for name in ("step", "rows", *scores))
    lines = []
    for manifest in run.manifests:
        numbers = [
            manifest.get("step"),
            manifest.get("num_rows"),
            *((manifest.get("scores") or {}).get(s) for s in scores),
        ]
        cells = "".join(f"<td>{escape(value_text(number))}</td>" for number in numbers)
        lines.append(f'<tr><td class="text">{escape(manifest["folder"])}</td>{cells}</tr>')
    return (
        f'<div class="card scroll"><table><thead><tr><th class="text">folder</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _reproduce(run: RunFolder) -> str:
    git = run.environment.get("git")
    commit = f"git checkout {git['commit']}{'   # with local changes' if git['dirty'] else ''}\n" if git else ""
    command = run.environment.get("command")
    asked = f"<p class='muted'>This run was started with <code>{escape(command)}</code>.</p>" if command else ""
    recipe = (
        f'<details class="card"><summary>recipe.yaml, as it was run</summary><pre>{escape(run.recipe)}</pre></details>'
        if run.recipe
        else ""
    )
    again = escape(f"{commit}foreloom train recipe.yaml --out again")
    return f'{asked}<div class="card"><pre>{again}</pre></div>{recipe}'


def _environment(environment: Mapping[str, Any]) -> str:
    parts = {"Hardware": dict(environment.get("hardware") or {}), "Versions": environment.get("versions") or {}}
    if size_bytes := parts["Hardware"].pop("memory_bytes", None):
        parts["Hardware"]["memory"] = f"{size_bytes / 2**30:.0f} GB"
    return grid(fact_cards(parts))


def _loss(record: Mapping[str, Any]) -> str:
    return "not finite" if record["loss"] is None else f"{record['loss']:#.3g}".removesuffix(".")


def _title(stem: str) -> str:
    return stem.replace("_", " ").replace("-", " ").strip().capitalize()


def _date(event: Mapping[str, Any]) -> str:
    return event["time"].replace("T", " ").removesuffix("+00:00") + " UTC"
