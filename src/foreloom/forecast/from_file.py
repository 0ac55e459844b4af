"""A file of series in, a file of forecasts out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from foreloom.files import check_writable
from foreloom.forecast.files import rows_of_file, suffix_of, write_table
from foreloom.forecast.table import TABLE_OPTIONS, options_of_table

if TYPE_CHECKING:
    from foreloom.forecast.model import Model
    from foreloom.monitoring.progress import Progress


def forecast_file(
    model: Model,
    data: str | Path,
    out: str | Path,
    *,
    future: str | Path | None = None,
    say: Callable[[str], object] | None = None,
    progress: Callable[[str], Progress] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Forecast every series of the table in `data`, of a folder of tables or of a data set, write the result to `out`
    and return it too.

    `future` is a file with the covariates known ahead; `options` are those of `Model.predict_df`, and `separator` and
    `decimal` of a text file; `say` is told what was understood, and `progress(title)` is opened while it is
    forecast. ValueError where `out` is one of the files that are read, or takes no file.
    """
    suffix_of(Path(out))  # before the forecast is paid for
    check_writable(out, "--out", [path for path in (data, future) if path is not None])
    asked = options_of_table(options)
    rows = [None if path is None else rows_of_file(path, asked) for path in (data, future)]
    rest = {name: value for name, value in options.items() if name not in TABLE_OPTIONS}
    result = model.predict_table(rows[0], rows[1], asked, say=say, progress=progress, **rest)
    write_table(result, out)
    return result
