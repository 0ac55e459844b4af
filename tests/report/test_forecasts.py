"""The picture of a forecast: each panel holds its own series' history, whatever the table's order and index."""

from __future__ import annotations

import numpy as np
import pandas as pd

from foreloom.report.forecasts import panels_of


def test_each_panel_has_its_own_history_in_order_of_time():
    times = pd.date_range("2024-01-01", periods=6)
    one = pd.DataFrame({"item_id": "a", "timestamp": times[3::-1], "target": [3.0, 2.0, 1.0, 0.0]})
    past = pd.concat([one, one.assign(item_id="b", target=one["target"] + 10)])  # labels twice
    future = pd.DataFrame({"item_id": ["a", "a", "b", "b"], "timestamp": [*times[4:], *times[4:]]})
    forecast = future.assign(target_name="target", predictions=4.0, **{"0.5": 4.0})
    panels = panels_of(past, forecast)
    assert [panel.title for panel in panels] == ["a", "b"]
    for panel, first in zip(panels, (0, 10), strict=True):
        np.testing.assert_array_equal(panel.history, first + np.arange(4.0))
        np.testing.assert_array_equal(panel.timestamps, times.to_numpy().astype("datetime64[s]"))
