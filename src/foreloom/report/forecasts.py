"""`foreloom forecast`: a table in, a table of quantile forecasts and a picture out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foreloom.report.figures import ForecastPanel, forecast_figure
from foreloom.report.style import save_figure

if TYPE_CHECKING:
    import pandas as pd

MAX_PANELS = 6


def forecast_and_draw(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    plot: bool = False,
    device: str = "auto",
    future: str | Path | None = None,
    **options: Any,
) -> list[Path]:
    """Forecast every series of the table in `data` into `out`; with `plot`, draw the first few beside it as PNG.

    `options` are those of `foreloom.Model.predict_df`. Returns the files written. Raises ValueError as it does.
    """
    from foreloom.forecast import forecast_file, from_pretrained
    from foreloom.forecast.table import options_of_table, rows_of_file

    result = forecast_file(from_pretrained(model, device=device), data, out, future=future, **options)
    written = [Path(out)]
    if plot:
        picture = Path(out).with_suffix(".png")
        panels = panels_of(rows_of_file(data, options_of_table(options)), result)
        save_figure(forecast_figure(panels), picture)
        written.append(picture)
    return written


def panels_of(past: Any, forecast: pd.DataFrame) -> list[ForecastPanel]:
    """The first series and targets of a forecast with their history. `past` is the table that was forecast."""
    import pandas as pd

    from foreloom.data.tables.long_table import LongTable, instants
    from foreloom.data.tables.read import TableOptions, rows_of

    *ids, time = forecast.columns[: forecast.columns.get_loc("target_name")]
    targets = tuple(forecast["target_name"].unique())
    options = TableOptions(id_column=tuple(ids), timestamp_column=time, target=targets)
    table = LongTable.read(rows_of(past, "the table", options))
    levels = [float(name) for name in forecast.columns if _is_level(name)]
    shown = [(n, target) for n in range(len(table.keys_N)) for target in targets][:MAX_PANELS]
    length = len(forecast) // (len(table.keys_N) * len(targets))
    panels = []
    for place, (n, target) in enumerate(shown):
        mine, future = slice(table.starts[n], table.starts[n + 1]), forecast.iloc[place * length : (place + 1) * length]
        times = np.concatenate([instants(table.times_T[mine]), instants(pd.DatetimeIndex(future[time]))])
        panels.append(
            ForecastPanel(
                title=f"{table.names_N[n]} · {target}" if len(targets) > 1 else table.names_N[n],
                history=table.numbers(target)[mine],
                actual=None,
                levels=levels,
                quantiles=future[[str(level) for level in levels]].to_numpy(np.float64),
                timestamps=times.astype("datetime64[s]"),
            )
        )
    return panels


def parse_levels(text: str) -> list[float]:
    """Quantile levels as typed: comma separated, each between 0 and 1; ascending in the answer."""
    try:
        levels = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"quantiles {text!r}: write levels between 0 and 1, comma separated: 0.1,0.5,0.9.") from None
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"quantiles {text!r}: every level must lie between 0 and 1.")
    return levels


def _is_level(column: str) -> bool:
    return column.replace(".", "", 1).isdigit()
