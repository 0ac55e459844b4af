"""Do calibrated bands hold what they say? Coverage and width on windows later than those a calibration is made of.

python benchmarks/calibration.py MODEL --data-root ../shared/data

Prints the rows of the table in docs/forecasting.md, and how near they are to 80 %. `--others` are the sets that the
method was chosen on; `--squeeze 0.6` takes all quantiles nearer to the median first, as of a model too sure of itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.data.formats.reader import ChosenRows, open_source
from foreloom.data.stream.selection import fixed_choice
from foreloom.evaluation.by_name import forecasters_by_name
from foreloom.evaluation.calibrate import calibrate
from foreloom.models.family import Forecaster

HORIZONS = {
    "m4_hourly": 48, "m3_monthly": 18, "nn5": 56, "vehicle_trips": 14, "traffic_weekly": 8, "aus_retail": 18,
    "pjm_hourly": 24, "us_employment": 12,
}  # fmt: skip
OTHERS = {
    "ansett": 8, "aus_temperature": 48, "aus_tourism": 4, "beijing_air": 24, "bike_sharing": 24, "epf_a": 24,
    "etth1": 24, "etth2": 24, "ettm1": 24, "exchange_rate": 30, "fred_md": 12, "gefcom2012_wind": 48, "los_loop": 12,
    "m1_monthly": 18, "m1_quarterly": 8, "m1_yearly": 6, "m3_quarterly": 8, "m3_yearly": 6, "m4_weekly": 13,
    "nab_a": 24, "national_illness": 12, "nn3": 18, "nyc_weather": 24, "pbs": 12, "sales_weekly": 4,
    "seattle_trail": 24, "sunspot": 30, "us_births": 30, "weather_jena": 48, "yosemite_temps": 48,
}  # fmt: skip
MOST_SERIES = 100
COLUMNS = ("coverage", "coverage_calibrated", "standard_error", "width", "width_calibrated")
NEAR = 0.03


class Squeezed:
    """A forecaster whose quantiles lie `factor` times as far from its median."""

    def __init__(self, base: Forecaster, factor: float) -> None:
        self._base, self._factor = base, factor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def predict_quantiles(
        self, inputs: Sequence[ForecastInput], horizon: int, levels: Sequence[float], **options: Any
    ) -> list[np.ndarray]:
        median = [list(levels).index(0.5)]
        forecasts = self._base.predict_quantiles(inputs, horizon, levels, **options)
        return [one[..., median] + self._factor * (one - one[..., median]) for one in forecasts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--others", action="store_true")
    parser.add_argument("--squeeze", type=float, default=1.0)
    given = parser.parse_args()
    (forecaster, _) = forecasters_by_name([given.model], torch.device("cpu")).values()
    print("| data | windows | coverage 80 | calibrated | standard error | width | calibrated |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    bands: list[Mapping[str, Any]] = []
    for name, horizon in (OTHERS if given.others else HORIZONS).items():
        source = open_source(given.data_root / name)
        rows = fixed_choice(np.arange(len(source)), MOST_SERIES)
        few = ChosenRows(source, rows, name=name, fingerprint=source.fingerprint, files={})
        trial = calibrate(Squeezed(forecaster, given.squeeze), few, horizon, given.windows)
        bands.append(next(row for row in trial.rows if row["band"] == 80))
        figures = " | ".join(f"{bands[-1][key]:.3f}" for key in COLUMNS)
        print(f"| {name} | {trial.num_windows:,} | {figures} |", flush=True)
    error = np.array([band["standard_error"] for band in bands])
    for key in ("coverage", "coverage_calibrated"):
        off = np.abs(np.array([band[key] for band in bands]) - 0.8)
        near = f"{(off <= NEAR).sum()} of {len(off)} within three points of 80 %"
        print(f"{key}: {near}, {(off <= 2 * error).sum()} within two standard errors, {off.mean():.3f} off on average")
    print(f"a perfect band would be {np.sqrt(2 / np.pi) * error.mean():.3f} off on average, by chance")


if __name__ == "__main__":
    main()
