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
    from foreloom.forecast import from_pretrained, read_table
    from foreloom.forecast.files import forecast_file

    result = forecast_file(from_pretrained(model, device=device), data, out, future=future, **options)
    written = [Path(out)]
    if plot:
        picture = Path(out).with_suffix(".png")
        panels = panels_of(read_table(data, str(result.columns[0])), result)
        save_figure(forecast_figure(panels), picture)
        written.append(picture)
    return written


def panels_of(past: pd.DataFrame, forecast: pd.DataFrame) -> list[ForecastPanel]:
    """The first series and targets of a forecast with their history. `past` is the table that was forecast."""
    import pandas as pd

    from foreloom.forecast.table import with_ids

    id_column, timestamp_column = forecast.columns[:2]
    past = with_ids(past, id_column, timestamp_column)
    levels = [float(name) for name in forecast.columns if _is_level(name)]
    panels = []
    for (item, target), future in forecast.groupby([id_column, "target_name"], sort=False):
        if len(panels) == MAX_PANELS:
            break
        mine = past[past[id_column] == item]
        mine = mine.assign(**{timestamp_column: pd.to_datetime(mine[timestamp_column])}).sort_values(timestamp_column)
        times = np.concatenate([mine[timestamp_column].to_numpy(), future[timestamp_column].to_numpy()])
        panels.append(
            ForecastPanel(
                title=f"{item} · {target}" if forecast["target_name"].nunique() > 1 else str(item),
                history=mine[target].to_numpy(np.float64),
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
