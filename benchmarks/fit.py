"""Is a fitted model ever worse than its base? Each data set's last window, of few series its last windows, is kept
from the fit and scored after it.

    python benchmarks/fit.py small --minutes 2 --out runs/fit

Errors are the quantile loss over the seasonal error (SQL), those of what `fit` kept over those of the base, with the
interval of a bootstrap over their rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import foreloom
from foreloom.data.formats.reader import ChosenRows, open_source
from foreloom.data.source import Shortened, Source
from foreloom.data.stream.selection import fixed_choice
from foreloom.evaluation.backtest import backtest, rolling_task
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.by_name import forecasters_by_name
from foreloom.tuning.fit import fit
from foreloom.tuning.verdict import ratio, row_errors

HORIZONS = {
    "m4_hourly": 48, "m3_monthly": 18, "nn5": 56, "traffic_weekly": 8, "aus_retail": 18, "us_employment": 12,
    "bike_sharing": 24, "epf_a": 24,
}  # fmt: skip
"""The last two have covariates, of which they are most of the sense."""
FRESH = {
    "m1_monthly": 18, "m4_weekly": 13, "beijing_air": 24, "gefcom2012_wind": 48, "aus_tourism": 8, "pjm_hourly": 24,
    "nn3": 18, "ercot_dam_price": 24,
}  # fmt: skip
"""On which no rule of `fit` was found: `--only` names them."""
MOST_SERIES = 200
LEAST_ROWS = 20
"""To be scored after the fit: of few series more windows than one are kept from it, as an interval needs so many."""


def opened(path: Path) -> Source:
    """A data set, or so many of its series."""
    source = open_source(path)
    rows = fixed_choice(np.arange(len(source)), MOST_SERIES)
    return ChosenRows(source, rows, name=path.name, fingerprint=source.fingerprint, files={})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(HORIZONS), choices=[*HORIZONS, *FRESH])
    given = parser.parse_args()
    base = foreloom.from_pretrained(given.model)
    (forecaster, _) = forecasters_by_name([given.model], torch.device("cpu")).values()
    print("| data | kept | on what it did not see, over the base | rows | Seasonal Naive over the base |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name in given.only:
        horizon, source = (HORIZONS | FRESH)[name], opened(given.data_root / name)
        num_windows = -(-LEAST_ROWS // int(source.num_targets.sum()))
        known = Shortened(source, np.maximum(source.lengths - num_windows * horizon, 0))
        out = given.out / name
        found = fit(base.family, given.model, known, horizon, out, minutes=given.minutes)
        asked = {"base": forecaster, "naive": SeasonalNaive()}
        if found.chosen is not None:
            (asked["kept"], _) = forecasters_by_name([str(out)], torch.device("cpu")).values()
        scored = backtest(asked, rolling_task(source, horizon, num_windows))
        errors = {model: row_errors(scored, model) for model in asked}
        kept = ratio(errors["kept"], errors["base"]) if found.chosen else "1, the base"
        naive = ratio(errors["naive"], errors["base"])
        print(
            f"| {name} | {found.chosen or 'zero-shot'} | {kept} | {naive.num_rows} | {naive.estimate:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
