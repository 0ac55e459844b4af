"""Many short series: `predict` and `predict_df` beside chronos-forecasting, trained weights, interleaved in one run.

    OMP_NUM_THREADS=2 python benchmarks/short_series.py --trained runs/quickstart    # without, one is trained first
    OMP_NUM_THREADS=2 python benchmarks/short_series.py --quick                      # does it still run?

2,000 series of 120 steps, 12 to be forecast at three levels with the defaults of both sides. Both sides load the same
folder and their forecasts are asserted equal before anything is timed. `--cpu-time` measures CPU time and not the
clock's: what a busy machine disturbs least (with one thread; more of them spin while they wait).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from chronos import Chronos2Pipeline

import foreloom
from trained import trained_folder
from turns import Call, Table, parser

LEVELS = [0.1, 0.5, 0.9]
NUM_STEPS, HORIZON = 120, 12


def series(num_series: int) -> np.ndarray:
    """float32 (series, NUM_STEPS): a weekly season on a random walk."""
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(num_series, NUM_STEPS)).cumsum(1)
    season = 3 * np.sin(2 * np.pi * (np.arange(NUM_STEPS) + rng.integers(7, size=(num_series, 1))) / 7)
    return (50 + walks + season).astype(np.float32)


def long_table(values_NL: np.ndarray) -> pd.DataFrame:
    names = np.array([f"series-{number:05d}" for number in range(len(values_NL))], dtype=object)
    days = pd.date_range("2024-01-01", periods=values_NL.shape[1], freq="D")
    return pd.DataFrame(
        {"item_id": names.repeat(len(days)), "timestamp": np.tile(days, len(names)), "target": values_NL.ravel()}
    )


def pairs(folder: Path, num_series: int) -> dict[str, tuple[Call, Call]]:
    """What each side is asked, by what it is given; the sum of a forecast comes back."""
    ours = foreloom.from_pretrained(folder, device="cpu")
    theirs = Chronos2Pipeline.from_pretrained(folder)
    values = series(num_series)
    rows, table = list(values), long_table(values)
    our_table = lambda: ours.predict_df(table, prediction_length=HORIZON, quantile_levels=LEVELS)
    their_table = lambda: theirs.predict_df(table, prediction_length=HORIZON, quantile_levels=LEVELS)
    expected = torch.stack(theirs.predict_quantiles(rows, HORIZON, LEVELS)[0])[:, 0].numpy()
    for forecasts in (ours.predict(values, HORIZON, LEVELS), ours.predict(rows, HORIZON, LEVELS)):
        np.testing.assert_allclose(np.stack(forecasts)[:, 0], expected, rtol=1e-4, atol=1e-3)
    columns = [str(level) for level in LEVELS]
    np.testing.assert_allclose(our_table()[columns], their_table()[columns], rtol=1e-4, atol=1e-3)
    return {
        "predict, an array": (
            lambda: float(ours.predict(values, HORIZON, LEVELS)[0].sum()),
            lambda: float(theirs.predict_quantiles(values[:, None], HORIZON, LEVELS)[0][0].sum()),
        ),
        "predict, a list": (
            lambda: float(ours.predict(rows, HORIZON, LEVELS)[0].sum()),
            lambda: float(theirs.predict_quantiles(rows, HORIZON, LEVELS)[0][0].sum()),
        ),
        "predict_df": (lambda: float(len(our_table())), lambda: float(len(their_table()))),
    }


def main() -> None:
    arguments = parser(__doc__, turns=7).parse_args()
    with trained_folder(arguments.trained, quick=arguments.quick) as folder:
        table = Table(arguments, "chronos-forecasting")
        for num_series in arguments.rows or ([50] if arguments.quick else [2000]):
            for name, pair in pairs(folder, num_series).items():
                table.compare(f"{num_series:,} series, {name}", pair)


if __name__ == "__main__":
    main()
