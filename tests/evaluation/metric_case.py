"""Four short series with every difficulty of the metrics, and forecasts for their last 6 steps."""

import numpy as np

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
HORIZON = 6


def series_and_forecasts():
    """A list of series (T,), and the forecasts (S, H, Q)."""
    t = np.arange(40.0)
    series = [10 + 3 * np.sin(t / 2 + s) + 0.2 * s * t for s in range(4)]
    series[1][[3, 17, 37]] = np.nan  # missing in the past and in the horizon
    series[2][:34] = 5.0  # seasonal error 0: not scaled
    series[3] = series[3][:-30]  # a past of 4 steps, shorter than a season
    spread = np.array(LEVELS) - 0.5
    forecasts = [
        (np.nan_to_num(y[-HORIZON:], nan=9.0) * 0.9 + np.cos(np.arange(HORIZON)))[:, None] + 4 * spread for y in series
    ]
    return series, np.stack(forecasts)
