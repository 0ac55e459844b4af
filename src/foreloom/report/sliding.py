"""`foreloom evaluate --data`: models beside naive forecasts on all windows of data sets, for several horizons."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from foreloom.evaluation.ltsf import HORIZONS, default_context, read_ltsf
from foreloom.evaluation.sliding import SlidingWindows, WindowProtocol, channels_of
from foreloom.evaluation.sliding_scores import SlidingResult, score_windows
from foreloom.report.score_files import default_csv, fallback_sentences, publish
from foreloom.report.tables import BASELINE

if TYPE_CHECKING:
    from foreloom.models.family import Forecaster
    from foreloom.report.sharing import Sharing

Normalization = Literal["none", "context"]
"""Is the forecaster to take the values as they are, or to normalise each context as it does for users?"""
LAST_VALUE = "last-value"


@dataclass(frozen=True)
class SlidingOptions:
    """How a data set becomes windows. What is None is chosen by the data."""

    horizons: tuple[int, ...] | None = None
    """Default: 96, 192, 336 and 720 for a CSV, 96 for other data."""
    context_length: int | None = None
    """Default by horizon, see `evaluation.ltsf.default_context`; never more than the model uses."""
    protocol: WindowProtocol = "standard"
    normalization: Normalization = "none"
    channels: tuple[str, ...] | None = None
    """Columns of a CSV."""
    date_column: str | None = None
    """Of a CSV."""
    season_length: int | None = None
    """Default: by the frequency of the data."""


@dataclass(frozen=True)
class SlidingTask:
    """One row of the table a model: a data set at one horizon."""

    name: str
    data: str
    horizon: int
    cut: Callable[[int, int], SlidingWindows]
    """cut(prediction_length, context_length) -> windows; ValueError where the data are too short."""
    is_scaled: bool
    """Does the data set's protocol bring the values to unit scale?"""


def evaluate_windows_and_tabulate(
    models: Sequence[str | Path],
    data: str | Path,
    options: SlidingOptions,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> Path:
    """Score `models` (see `report.contestants`) and naive forecasts on all windows of `data`, see `score_sliding`.

    A CSV is read by the LTSF protocol (`evaluation.ltsf`), anything else as series in raw values. `out` is the CSV of
    scores (default: evaluation/<data>.csv in the run folder where one model is given and is one, else
    <data>-scores.csv here). Returns its path.
    """
    data = Path(data)
    csv_path = Path(out) if out else default_csv(models, data.stem)
    cut = window_cutter(data, options)
    horizons = options.horizons or (HORIZONS if _is_csv(data) else HORIZONS[:1])
    tasks = [SlidingTask(f"{data.stem}-{horizon}", data.stem, horizon, cut, _is_csv(data)) for horizon in horizons]
    score_sliding(models, tasks, options, csv_path, title=data.name, batch_size=batch_size, device=device)
    return csv_path


def score_sliding(
    models: Sequence[str | Path],
    tasks: Sequence[SlidingTask],
    options: SlidingOptions,
    csv_path: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """Score `models`, the last value and Seasonal Naive; print the table, write CSV, Markdown and pictures.

    All see the same contexts. A task that the data are too short for is noted and the others run; ValueError where none
    can. Collective under torchrun: the ranks share the windows, rank 0 prints and writes.
    """
    from foreloom.evaluation.baselines import Naive
    from foreloom.report.contestants import contestants
    from foreloom.report.sharing import shared_by_ranks

    with shared_by_ranks() as sharing:
        entered = contestants(models, device)
        windows, planned_notes = plan_tasks(
            tasks, options.context_length, min(one.context_length for one in entered.values())
        )
        asked = {(task.horizon, one.context_length) for task in tasks if (one := windows[task.name])}
        for forecaster in entered.values():
            # Lengths that do not fit a model are refused before hours of forecasts.
            for horizon, context_length in asked:
                forecaster.predict_quantiles([], horizon, [0.5], context_length=context_length)
        raw = [label for label, one in entered.items() if one.on_scaled_data() is not one]
        if options.normalization == "none" and raw and not all(task.is_scaled for task in tasks):
            planned_notes.append(
                f"{' and '.join(raw)} expects values of unit scale and was given raw ones, as in the published "
                "evaluation; --normalization context scores it as it forecasts for users."
            )
        baseline = entered.pop(BASELINE)
        drawn = list(entered) or [BASELINE]
        as_is = options.normalization == "none"
        forecasters: dict[str, Forecaster] = {
            **{label: one.on_scaled_data() if as_is else one for label, one in entered.items()},
            **({} if any(isinstance(one, Naive) for one in entered.values()) else {LAST_VALUE: Naive()}),
            BASELINE: baseline,
        }
        results = {label: _score(label, one, windows, batch_size, sharing) for label, one in forecasters.items()}
        rows = [
            _row(label, task, windows[task.name], results[label].get(task.name), options)
            for label in forecasters
            for task in tasks
        ]
        examples = {label: {name: one.examples for name, one in results[label].items()} for label in drawn}
        told = [*notes, *planned_notes, *(s for label, result in results.items() for s in _fallbacks(label, result))]
        heading = f"{', '.join(drawn)} on {title}, protocol {options.protocol}, normalization {options.normalization}"
        sharing.on_rank_zero(lambda: publish(rows, examples, csv_path, sharing.console, title=heading, notes=told))


def parse_options(
    horizons: str | None,
    context_length: int | None,
    protocol: str | None,
    normalization: str | None,
    channels: str | None,
    date_column: str | None,
    season_length: int | None,
) -> SlidingOptions:
    """Options as typed: lists are comma separated. ValueError names the option that is not one of its values."""
    return SlidingOptions(
        horizons=None if horizons is None else _parse_horizons(horizons),
        context_length=context_length,
        protocol=_one_of("--protocol", protocol or "standard", get_args(WindowProtocol)),
        normalization=_one_of("--normalization", normalization or "none", get_args(Normalization)),
        channels=None if channels is None else tuple(name.strip() for name in channels.split(",")),
        date_column=date_column,
        season_length=season_length,
    )


def _parse_horizons(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--horizon {text!r}: write whole numbers of steps, comma separated: 96,192.")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _one_of(option: str, value: str, known: tuple[Any, ...]) -> Any:
    if value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"{option} {value!r}: expected {' or '.join(known)}.{hint}")
    return value


def window_cutter(data: Path, options: SlidingOptions) -> Callable[[int, int], SlidingWindows]:
    """Reads the data; cut(prediction_length, context_length) -> windows."""
    if _is_csv(data):
        table = read_ltsf(
            data,
            channels=options.channels,
            date_column=options.date_column,
            season_length=options.season_length,
        )
        return lambda horizon, context: table.windows(horizon, context, options.protocol)
    for setting in ("channels", "date_column"):
        if getattr(options, setting) is not None:
            raise ValueError(f"{data}: {setting} names columns of a CSV; other data are scored whole. Leave it out.")
    from foreloom.data.formats.reader import open_source

    channels = channels_of(open_source(data), options.season_length)
    return lambda horizon, context: SlidingWindows(channels, context, horizon, options.protocol)


def plan_tasks(
    tasks: Sequence[SlidingTask], context_length: int | None, most_context: int
) -> tuple[dict[str, SlidingWindows | None], list[str]]:
    """The windows of each task, None where there are none, and sentences about what is not as usual."""
    if context_length is not None and context_length > most_context:
        raise ValueError(
            f"a context of {context_length:,} steps was asked for, but the model uses {most_context:,} at most. Ask "
            f"for {most_context} or less."
        )
    windows: dict[str, SlidingWindows | None] = {}
    notes = []
    is_one_set = len({task.data for task in tasks}) == 1
    for task in tasks:
        what = f"horizon {task.horizon}" if is_one_set else task.name
        context = context_length or min(default_context(task.horizon), most_context)
        try:
            windows[task.name] = task.cut(task.horizon, context)
        except ValueError as error:
            windows[task.name] = None
            notes.append(f"{what} was not scored. {error}")
            continue
        if not context_length and context < default_context(task.horizon):
            notes.append(
                f"{what}: the context is {context:,} steps, all that the model uses, instead of "
                f"{default_context(task.horizon):,}."
            )
    if not any(windows.values()):
        raise ValueError("\n".join(notes))
    return windows, notes


def _score(
    label: str,
    forecaster: Forecaster,
    windows: Mapping[str, SlidingWindows | None],
    batch_size: int | None,
    sharing: Sharing,
) -> dict[str, SlidingResult]:
    results = {}
    with sharing.progress(label) as progress:
        for name, one in windows.items():
            if one is not None:
                results[name] = score_windows(
                    forecaster,
                    one,
                    batch_size=batch_size,
                    rank=sharing.rank,
                    world_size=sharing.world_size,
                    reduce=sharing.reduce,
                    progress=lambda done, total, name=name: progress(name, done, total),
                )
    return results


def _row(
    model: str,
    task: SlidingTask,
    windows: SlidingWindows | None,
    result: SlidingResult | None,
    options: SlidingOptions,
) -> dict[str, Any]:
    """A row of the CSV; a task that could not be scored has no windows and NaN as scores."""
    return {
        "model": model,
        "task": task.name,
        "data": task.data,
        "horizon": task.horizon,
        "context": windows.context_length if windows else 0,
        "protocol": options.protocol,
        "normalization": options.normalization,
        "MSE": result.mse if result else math.nan,
        "MAE": result.mae if result else math.nan,
        "num_windows": result.num_windows if result else 0,
        "num_channels": len(windows.channels) if windows else 0,
        "num_points": int(result.num_points_N.sum()) if result else 0,
        "seconds": round(result.seconds, 3) if result else 0.0,
    }


def _fallbacks(label: str, results: Mapping[str, SlidingResult]) -> list[str]:
    return fallback_sentences(label, {name: result.num_fallbacks for name, result in results.items()})


def _is_csv(data: Path) -> bool:
    return ".csv" in data.suffixes
