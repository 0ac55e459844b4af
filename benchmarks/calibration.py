"""Do calibrated bands hold what they say? Coverage and width on windows later than those a calibration is made of.

python benchmarks/calibration.py MODEL --data-root ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from foreloom.data.formats.reader import ChosenRows, open_source
from foreloom.data.stream.selection import fixed_choice
from foreloom.evaluation.by_name import forecasters_by_name
from foreloom.evaluation.calibrate import calibrate

HORIZONS = {
    "m4_hourly": 48, "m3_monthly": 18, "nn5": 56, "vehicle_trips": 14, "traffic_weekly": 8, "aus_retail": 18,
    "pjm_hourly": 24, "us_employment": 12,
}  # fmt: skip
MOST_SERIES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--windows", type=int, default=8)
    given = parser.parse_args()
    (forecaster, _) = forecasters_by_name([given.model], torch.device("cpu")).values()
    print("| data | windows | coverage 80 | calibrated | width | calibrated |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, horizon in HORIZONS.items():
        source = open_source(given.data_root / name)
        rows = fixed_choice(torch.arange(len(source)).numpy(), MOST_SERIES)
        few = ChosenRows(source, rows, name=name, fingerprint=source.fingerprint, files={})
        trial = calibrate(forecaster, few, horizon, given.windows)
        band = next(row for row in trial.rows if row["band"] == 80)
        figures = (f"{band[key]:.3f}" for key in ("coverage", "coverage_calibrated", "width", "width_calibrated"))
        print(f"| {name} | {trial.num_windows:,} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
