"""`foreloom evaluate --data`: a model beside naive forecasts on all windows of a data set, for several horizons."""

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


def evaluate_windows_and_tabulate(
    model: str | Path,
    data: str | Path,
    options: SlidingOptions,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> Path:
    """Score `model`, the last value and Seasonal Naive on `data`; print the table, write CSV, Markdown and pictures.

    A CSV is read by the LTSF protocol (`evaluation.ltsf`), anything else as series in raw values. A horizon that the
    data are too short for is noted and the others run; ValueError where none can. `out` is the CSV of scores (default:
    evaluation/<data>.csv in the run folder where `model` is one, else <data>-scores.csv here). Returns its path.
    Collective under torchrun: the ranks share the windows, rank 0 prints and writes.
    """
    from foreloom.evaluation.baselines import Naive, SeasonalNaive
    from foreloom.forecast import from_pretrained
    from foreloom.report.score_files import default_csv, model_name, publish
    from foreloom.report.sharing import shared_by_ranks

    data, name = Path(data), model_name(model)
    csv_path = Path(out) if out else default_csv(model, data)
    with shared_by_ranks() as sharing:
        cut = window_cutter(data, options)
        forecaster = from_pretrained(model, device=device).forecaster
        horizons = options.horizons or (HORIZONS if _is_csv(data) else HORIZONS[:1])
        windows, notes = plan_horizons(cut, horizons, options.context_length, forecaster.context_length)
        for horizon, one in windows.items():
            if one is not None:  # lengths that do not fit the model are refused before hours of forecasts
                forecaster.predict_quantiles([], horizon, [0.5], context_length=one.context_length)
        forecasters: dict[str, Forecaster] = {
            name: forecaster.on_scaled_data() if options.normalization == "none" else forecaster,
            LAST_VALUE: Naive(),
            BASELINE: SeasonalNaive(),
        }
        results = {label: _score(label, one, windows, batch_size, sharing) for label, one in forecasters.items()}
        rows = [
            _row(label, data.stem, horizon, one, results[label].get(horizon), options)
            for label in forecasters
            for horizon, one in windows.items()
        ]
        examples = {_task(data.stem, horizon): result.examples for horizon, result in results[name].items()}
        title = f"{name} on {data.name}, protocol {options.protocol}, normalization {options.normalization}"
        sharing.on_rank_zero(lambda: publish(rows, examples, csv_path, sharing.console, title=title, notes=notes))
    return csv_path


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
    from foreloom.data.reader import open_source

    channels = channels_of(open_source(data), options.season_length)
    return lambda horizon, context: SlidingWindows(channels, context, horizon, options.protocol)


def plan_horizons(
    cut: Callable[[int, int], SlidingWindows], horizons: Sequence[int], context_length: int | None, most_context: int
) -> tuple[dict[int, SlidingWindows | None], list[str]]:
    """The windows of each horizon, None where there are none, and sentences about what is not as usual."""
    if context_length is not None and context_length > most_context:
        raise ValueError(
            f"a context of {context_length:,} steps was asked for, but the model uses {most_context:,} at most. Ask "
            f"for {most_context} or less."
        )
    windows: dict[int, SlidingWindows | None] = {}
    notes = []
    for horizon in horizons:
        context = context_length or min(default_context(horizon), most_context)
        try:
            windows[horizon] = cut(horizon, context)
        except ValueError as error:
            windows[horizon] = None
            notes.append(f"horizon {horizon} was not scored. {error}")
            continue
        if not context_length and context < default_context(horizon):
            notes.append(
                f"horizon {horizon}: the context is {context:,} steps, all that the model uses, instead of "
                f"{default_context(horizon):,}."
            )
    if not any(windows.values()):
        raise ValueError("\n".join(notes))
    return windows, notes


def _score(
    label: str,
    forecaster: Forecaster,
    windows: Mapping[int, SlidingWindows | None],
    batch_size: int | None,
    sharing: Sharing,
) -> dict[int, SlidingResult]:
    results = {}
    with sharing.progress(label) as progress:
        for horizon, one in windows.items():
            if one is not None:
                results[horizon] = score_windows(
                    forecaster,
                    one,
                    batch_size=batch_size,
                    rank=sharing.rank,
                    world_size=sharing.world_size,
                    reduce=sharing.reduce,
                    progress=lambda done, total, horizon=horizon: progress(f"horizon {horizon}", done, total),
                )
    return results


def _task(data: str, horizon: int) -> str:
    return f"{data}-{horizon}"


def _row(
    model: str,
    data: str,
    horizon: int,
    windows: SlidingWindows | None,
    result: SlidingResult | None,
    options: SlidingOptions,
) -> dict[str, Any]:
    """A row of the CSV; a horizon that could not be scored has no windows and NaN as scores."""
    return {
        "model": model,
        "task": _task(data, horizon),
        "data": data,
        "horizon": horizon,
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


def _is_csv(data: Path) -> bool:
    return ".csv" in data.suffixes
