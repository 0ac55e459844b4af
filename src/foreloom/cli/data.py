"""`foreloom data`: look at, convert, fetch and make data sets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foreloom.cli.arguments import FILE, JsonOption, check_places, or_example, split_names, with_table_options
from foreloom.data.tables.options import TableOptions

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from foreloom.data.inspect import DataReport
    from foreloom.data.source import Series, Watch
    from foreloom.data.synthetic.source import SyntheticSource

MAX_SHOWN = 20
"""Windows of a step in the table on the console, the most suspicious ones."""
NUM_DRAWN = 8
"""Of them, in the picture."""
KINDS_AT_ONCE = 2**16

data_app = typer.Typer(help="Look at, convert, fetch and make data sets.", no_args_is_help=True)


@data_app.command(epilog="Example: foreloom data inspect examples/births.csv --context-length 512 --horizon 28")
@with_table_options
def inspect(
    path: Annotated[Path, typer.Argument(help="A data set in any layout foreloom reads.", callback=or_example)],
    context_length: Annotated[int, typer.Option(min=1, help="Context to count usable series for.")] = 512,
    horizon: Annotated[int, typer.Option(min=1, help="Horizon to count usable series for.")] = 64,
    plot: Annotated[Path | None, typer.Option(help="Draw examples and lengths (.png, .svg, .pdf).", **FILE)] = None,
    checksum: Annotated[bool, typer.Option("--checksum", help="Read every byte and print its SHA-256.")] = False,
    as_json: JsonOption = False,
    *,
    table: TableOptions,
) -> None:
    """Tell what a data set holds: series, lengths, gaps, duplicates, covariates."""
    from rich.console import Console

    from foreloom.data.formats.reader import open_source
    from foreloom.data.inspect import inspect
    from foreloom.report.data_figures import dataset_figure
    from foreloom.report.style import save_figure

    check_places([path], picture=plot)
    report = inspect(
        path,
        context_length=context_length,
        prediction_length=horizon,
        table=table,
        with_checksum=checksum,
        watch=_told("Reading"),
    )
    if as_json:
        numbers = {key: value for key, value in vars(report).items() if key != "examples"}
        typer.echo(json.dumps(numbers, indent=2, ensure_ascii=False))
    console = Console(quiet=as_json)
    facts = _facts(report, context_length, horizon)
    width = max(map(len, facts))
    for label, text in facts.items():
        console.print(f"[bold]{label:<{width}}[/]  {text}", highlight=False, soft_wrap=True)
    if plot is not None:
        examples = {example.item_id: (example.steps, example.values) for example in report.examples}
        save_figure(dataset_figure(examples, open_source(path, table=table).lengths), plot)
        console.print(f"wrote {plot}", highlight=False, soft_wrap=True)


@data_app.command(epilog="Example: foreloom data convert sales.csv sales.parquet --id-column store,item")
@with_table_options
def convert(
    source: Annotated[Path, typer.Argument(help="A data set in any layout foreloom reads.", callback=or_example)],
    out: Annotated[Path, typer.Argument(help="The file to write: .arrow or .parquet.", **FILE)],
    *,
    table: TableOptions,
) -> None:
    """Write a data set as one Arrow file, which is memory-mapped, or as Parquet, which is smaller."""
    from foreloom.data.convert import convert as write

    write(source, out, form="parquet" if out.suffix == ".parquet" else "arrow", table=table, watch=_told("Writing"))
    typer.echo(f"wrote {out}")


@data_app.command(epilog="Example: foreloom data synth regimes --num-series 1000 --length 512 --out regimes.arrow")
def synth(
    process: Annotated[str, typer.Argument(help="A process (kernel, patterns ...); none: list them all.")] = "",
    settings: Annotated[list[str] | None, typer.Argument(help="Its settings: max_kernels=3")] = None,
    num_series: Annotated[int, typer.Option(min=1, help="How many series.")] = 100,
    length: Annotated[str | None, typer.Option(help="Steps of each: a number, or a range such as 128..2048.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other series.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The file to write: .arrow or .parquet.", **FILE)] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw some of the series (.svg, .png, .pdf).", **FILE)] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List all processes and their settings.")] = False,
) -> None:
    """Write synthetic series, the same that the address synth://PROCESS streams into training."""
    from foreloom.data.convert import convert
    from foreloom.data.formats.reader import open_source
    from foreloom.data.synthetic.source import SyntheticSource
    from foreloom.report.data_figures import synthetic_figure
    from foreloom.report.style import save_figure

    if list_all or not process:
        if out is not None or plot is not None:
            raise ValueError("--out and --plot need a process: foreloom data synth kernel --out FILE.arrow.")
        _list_processes()
        return
    if out is None and plot is None:
        raise ValueError("say what to do with the series: --out FILE.arrow writes them, --plot FILE.svg draws some.")
    check_places([], picture=plot, files={"--out": out})
    address = _synthetic_address(process, settings or [], num_series, length, seed)
    source = SyntheticSource(address, open_source)
    if out is not None:
        convert(address, out, "parquet" if out.suffix == ".parquet" else "arrow", watch=_told("Writing"))
        typer.echo(f"wrote {num_series:,} series, {int(source.lengths.sum()):,} steps, to {out}")
    if plot is not None:
        typer.echo(f"wrote {save_figure(synthetic_figure(source), plot)}")
    typer.echo(f"the same in a recipe: {source.name}")
    _print_kinds(source)


@data_app.command(epilog="Example: foreloom data fetch chronos-lite --out data")
def fetch(
    suite: Annotated[str, typer.Argument(help="A suite (chronos-lite, gift-eval ...), or a YAML file of one.")],
    out: Annotated[Path, typer.Option(help="The data root: each data set gets a folder below it.")],
    only: Annotated[str, typer.Option(help="Names of data sets, comma separated (default: all).")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what is missing and its size.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare what is there with its checksums.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Fetch again what is there.")] = False,
) -> None:
    """Download the data sets of a suite from the Hugging Face hub; killed, it goes on where it was."""
    if not _fetched(suite, out, only=split_names(only), dry_run=dry_run, check=verify, overwrite=overwrite):
        raise typer.Exit(1)


def _fetched(
    suite: str | Path,
    out: Path,
    *,
    only: Sequence[str] = (),
    dry_run: bool = False,
    check: bool = False,
    overwrite: bool = False,
    hub: HfApi | None = None,
) -> bool:
    """Bring, list or check; True when all the data sets are there and whole. Raises ValueError as `fetch` does."""
    from huggingface_hub import HfApi

    from foreloom.evaluation.suites import load
    from foreloom.evaluation.suites.fetch import choose, fetch, fetch_entries, plan_fetch, verify

    if dry_run + check + overwrite > 1:
        raise ValueError("--dry-run, --verify and --overwrite exclude one another: give one of them.")
    if out.is_file():
        raise ValueError(f"{out} is a file; --out names the data root, a folder, which need not exist yet.")
    entries = choose(fetch_entries(load(suite)), only)
    if check:
        checked = verify(entries, out)
        _say(checked.lines())
        return len(checked.whole) == len(entries)
    hub = hub or HfApi(library_name="foreloom")
    if dry_run:
        plan = plan_fetch(entries, out, hub=hub)
        _say(plan.lines())
        return not plan.refused
    report = fetch(entries, out, overwrite=overwrite, hub=hub, say=lambda line: _say([line]))
    _say(report.lines())
    return not report.failed


def _told(title: str) -> Watch:
    """Of how many series are done."""
    from foreloom.monitoring.progress import Progress

    def watch(series: Iterable[Series], total: int) -> Iterator[Series]:
        with Progress(title) as progress:
            yield from progress.over(series, total, "series")

    return watch


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, flush=True)


@data_app.command(epilog="Example: foreloom data replay runs/quickstart 1200 --plot windows.png")
def replay(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    step: Annotated[int, typer.Argument(min=1, help="The optimizer step whose batch to rebuild.")],
    out: Annotated[Path | None, typer.Option(help="Write all its windows into this CSV.", **FILE)] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the most suspicious windows (.png, .svg, .pdf).", **FILE)
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="Add the series of --samples to this file, for data.exclude.", **FILE)
    ] = None,
    samples: Annotated[str, typer.Option(help="Samples of the batch, comma separated, as the table shows them.")] = "",
) -> None:
    """Rebuild the batch of a training step and show its windows, the most suspicious first."""
    from rich.console import Console

    from foreloom.data.stream.dataset import SeriesDataset
    from foreloom.data.stream.replay import by_suspicion
    from foreloom.report import step_windows
    from foreloom.report.data_figures import replay_figure
    from foreloom.report.style import save_figure

    numbers = split_names(samples)
    if not all(number.isdecimal() for number in numbers):
        raise ValueError(f"--samples {samples!r}: write whole numbers, comma separated: 1204,1210.")
    if (exclude is None) != (not numbers):
        raise ValueError("give --exclude FILE and --samples together: where to write, and which series.")
    check_places([], picture=plot, files={"--out": out, "--exclude": exclude})
    dataset, drawn = step_windows.batch_of_step(run, step)
    if not isinstance(dataset, SeriesDataset):
        _show_facts(dataset.facts(drawn), run, step, out, unused=plot or exclude)
        return
    windows = dataset.replay(drawn)
    suspects = by_suspicion(windows)
    chosen = step_windows.of_samples(windows, [int(number) for number in numbers], step)
    console = Console()
    say = lambda sentence: console.print(sentence, highlight=False, soft_wrap=True)
    num_samples = len({window.facts.sample for window in windows})
    title = f"Step {step:,} of {run.name}: {num_samples:,} samples, {len(windows):,} windows"
    console.print(step_windows.window_table(suspects[:MAX_SHOWN], title))
    if len(suspects) > MAX_SHOWN:
        advice = "" if out else "; --out FILE.csv writes all"
        say(f"{len(suspects) - MAX_SHOWN:,} more, less suspicious{advice}")
    if out is not None:
        step_windows.write_facts([dataclasses.asdict(window.facts) for window in windows], out)
        say(f"wrote {out}")
    if plot is not None:
        say(f"wrote {save_figure(replay_figure(suspects[:NUM_DRAWN]), plot)}")
    if exclude is not None:
        num_added = step_windows.exclude(chosen, exclude, f"step {step} of {run.resolve().name}")
        say(f"added {num_added} series to {exclude}; a run leaves them out with data.exclude={exclude}")


def _show_facts(facts: list[dict[str, Any]], run: Path, step: int, out: Path | None, *, unused: Path | None) -> None:
    """The samples of data that are no series: there are no windows to draw or to exclude."""
    from rich.console import Console

    from foreloom.report import step_windows

    if unused is not None:
        raise ValueError("--plot and --exclude are for runs on series; --out FILE.csv writes what this step read.")
    num_samples = len({one["sample"] for one in facts})
    title = f"Step {step:,} of {run.name}: {num_samples:,} samples"
    Console().print(step_windows.facts_table(facts[:MAX_SHOWN], title))
    if out is not None:
        step_windows.write_facts(facts, out)
        typer.echo(f"wrote {out}")


def _facts(report: DataReport, context_length: int, horizon: int) -> dict[str, str]:
    """Label -> sentence; what is not there (covariates, missing values) says so."""
    from foreloom.monitoring.health import bytes_in_words

    low, _, median, _, high = report.length_quantiles.values()
    fewest, most = report.variates
    variates = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    kinds = {"past": report.past, "known ahead": report.future, "static": report.static}
    kinds["categorical among them"] = report.categorical
    covariates = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    rows = {
        "data set": f"{report.path} ({report.layout}, {bytes_in_words(report.num_bytes)} mapped)",
        "series": f"{report.num_series:,}, {variates} variate{'s' if most > 1 else ''} each",
        "points": f"{report.num_points:,}",
        "length": f"{low:,} to {high:,} steps, median {median:,}" if low != high else f"{low:,} steps",
        "frequency": ", ".join(f"{freq} ({count:,})" for freq, count in report.freqs.items()),
        "missing": f"{report.num_missing:,} ({report.missing_share:.2%})",
        "not finite": f"{report.num_non_finite:,}",
        "constant": f"{report.num_constant:,} series",
        "duplicates": f"{report.num_duplicates:,} series equal an earlier one",
        "covariates": covariates or "none",
        "usable": f"{report.num_usable:,} series for a horizon of {horizon:,}; "
        f"{report.num_full_context:,} fill a context of {context_length:,}",
    }
    if report.checksum is not None:
        rows["checksum"] = f"SHA-256 {report.checksum}"
    if report.num_inspected < report.num_series:
        rows["looked at"] = (
            f"{report.num_inspected:,} series, chosen evenly: frequency, missing, not finite, constant, duplicates and "
            "covariates are of these"
        )
    return rows


def _synthetic_address(process: str, settings: Sequence[str], num_series: int, length: str | None, seed: int) -> str:
    """The address of what was asked for; ValueError for settings (name=value) that are options, or no settings."""
    from foreloom.data.synthetic.address import is_synthetic, parse_settings, write_address

    if is_synthetic(process):
        raise ValueError(
            f"{process}: give the name of the process alone, and its settings after it: kernel max_kernels=3."
        )
    given = parse_settings(settings)
    if options := [name for name in ("num_series", "length", "seed") if name in given]:
        raise ValueError(
            f"{', '.join(options)}: say it as an option: --{options[0].replace('_', '-')} {given[options[0]]}."
        )
    values = {"num_series": str(num_series)} | ({"length": length} if length else {}) | {"seed": str(seed)}
    return write_address(process, values | given)


def _print_kinds(source: SyntheticSource) -> None:
    """How many series there are of each kind."""
    from collections import Counter

    import numpy as np

    num_series = len(source)
    counts: Counter[str] = Counter()
    for first in range(0, num_series, KINDS_AT_ONCE):
        counts.update(source.kinds(np.arange(first, min(first + KINDS_AT_ONCE, num_series))))
    width = max(map(len, counts))
    for kind, count in counts.most_common():
        typer.echo(f"{kind:<{width}}  {count:>{len(f'{num_series:,}')},}  {count / num_series:>4.0%}")


def _list_processes() -> None:
    """All processes: a sentence each, and their settings."""
    from dataclasses import fields

    from foreloom.data.synthetic import registry

    shown = lambda value: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    for name in registry.names():
        process = registry.get(name)
        typer.echo(f"{name}\n  {process.sentence}\n  length={process.length}")
        for field in fields(process.settings):
            text = " ".join(str(process.settings.__pydantic_fields__[field.name].description).split())
            typer.echo(f"  {field.name}={shown(field.default)}  {text}")
