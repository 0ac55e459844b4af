"""Figures draw what they are given, and their files are whole, repeatable and follow dark mode."""

from __future__ import annotations

import matplotlib.colors
import matplotlib.dates
import numpy as np
import pandas as pd
import pytest

from foreloom.report.figures import ForecastPanel, central_bands, centred_mean, curve_figure, forecast_figure, panels_of
from foreloom.report.style import BLUE, DARK, INK, ORANGE, save_figure

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def panel(title: str = "series", horizon: int = 4, **changes) -> ForecastPanel:
    median_H = np.arange(horizon, dtype=float)
    values = {
        "title": title,
        "history": np.arange(40.0),
        "actual": median_H + 0.5,
        "levels": LEVELS,
        "quantiles": median_H[:, None] + np.array([-2.0, -1.0, 0.0, 1.0, 2.0]),
    }
    return ForecastPanel(**(values | changes))


def line(ax, color: str):
    return next(line for line in ax.lines if line.get_color() == color and len(line.get_xdata()) > 2)


def test_a_forecast_panel_shows_history_median_bands_and_actual():
    figure = forecast_figure([panel()])
    (ax,) = figure.axes
    np.testing.assert_array_equal(line(ax, INK).get_ydata(), np.arange(28.0, 40.0))  # three horizons
    np.testing.assert_array_equal(line(ax, INK).get_xdata(), np.arange(-11, 1))
    np.testing.assert_array_equal(line(ax, BLUE).get_xydata(), [[1, 0], [2, 1], [3, 2], [4, 3]])
    np.testing.assert_array_equal(line(ax, ORANGE).get_ydata(), [39.0, 0.5, 1.5, 2.5, 3.5])
    wide, narrow = (band.get_paths()[0].get_extents() for band in ax.collections)
    assert (wide.ymin, wide.ymax, narrow.ymin, narrow.ymax) == (-2, 5, -1, 4)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["history", "80 %", "50 %", "median", "actual"]


def test_panels_without_actuals_history_or_median():
    lone = panel(history=np.empty(0), actual=None, levels=(0.4, 0.9), quantiles=np.ones((1, 2)))
    figure = forecast_figure([lone])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["quantile 0.4"]
    assert len(forecast_figure([panel()] * 3).axes) == 3
    one_column = forecast_figure([panel()] * 3, num_columns=1)
    assert one_column.get_figheight() > 1.5 * one_column.get_figwidth()


def test_timestamps_are_on_the_axis():
    stamps = np.datetime64("2024-01", "M") + np.arange(44)
    (ax,) = forecast_figure([panel(timestamps=stamps)], history_length=2).axes
    drawn = matplotlib.dates.date2num(line(ax, BLUE).get_xdata())
    np.testing.assert_array_equal(drawn, matplotlib.dates.date2num(stamps[40:].astype("datetime64[s]")))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"levels": (0.5,)}, "1 quantile levels for 5 forecasts"),
        ({"actual": np.ones(3)}, "3 actual values for a horizon of 4"),
        ({"timestamps": np.arange(4).astype("datetime64[D]")}, "4 timestamps for 40 steps"),
    ],
)
def test_panels_that_do_not_fit_together_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=f"births: {complaint}"):
        panel("births", **changes)


def test_central_bands():
    deciles = [round(0.1 * i, 1) for i in range(1, 10)]
    assert central_bands(deciles) == [(0, 8), (2, 6)]
    assert central_bands([0.05, 0.5, 0.95]) == [(0, 2)]
    assert central_bands([0.1, 0.5, 0.8]) == []


def test_centred_mean_is_not_late_and_skips_gaps():
    ramp = np.arange(200.0)
    np.testing.assert_allclose(centred_mean(ramp), ramp)
    ramp[50] = np.nan
    assert centred_mean(ramp)[50] == pytest.approx(50.0)
    assert centred_mean([np.nan, 1.0])[1] == 1.0


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([30.0, np.nan, 1.0], "log"),
        ([1.9, 1.0, 1.2], "linear"),
        ([2.5, 7.7, 3.0], "linear"),
        ([0.0, 0.0, 0.0], "linear"),
        ([1.5, 15, 4], "log"),
    ],
)
def test_a_curve_has_ticks_to_read_it_by(values, scale):
    figure = curve_figure("loss", [1, 2, 3], values, log=True)
    (ax,) = figure.axes
    assert ax.get_yscale() == scale
    assert ax.get_title(loc="left") == "loss"
    figure.draw_without_rendering()
    low, high = ax.get_ylim()
    assert sum(low <= tick <= high for tick in ax.get_yticks()) >= 3


def test_svg_is_repeatable_dark_aware_and_safe_with_odd_titles(tmp_path):
    odd = "a $ b $ <script>alert(1)</script> " + "x" * 80
    first = save_figure(forecast_figure([panel(odd)]), tmp_path / "a.svg").read_text(encoding="utf-8")
    assert first == save_figure(forecast_figure([panel(odd)]), tmp_path / "b.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in first
    assert f"stroke: {BLUE}" in first
    assert f'[style*="stroke: {BLUE}"]{{stroke:{DARK[BLUE]}!important}}' in first
    assert "<script" not in first
    assert "a $ b $ &lt;script&gt;alert(1)" in first
    assert "…" in first


def test_pictures_are_whole_or_absent(tmp_path):
    path = save_figure(curve_figure("loss", [1, 2, 3], [3.0, 2.0, 1.0]), tmp_path / "new" / "loss.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    figure = curve_figure("loss", [1, 2], [1.0, 2.0])
    figure.savefig = lambda *args, **kwargs: (_ for _ in ()).throw(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        save_figure(figure, path)
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match=r"loss\.jpg: a picture's name must end in"):
        save_figure(figure, tmp_path / "loss.jpg")


def test_figures_leave_the_users_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    forecast_figure([panel()])
    assert dict(matplotlib.rcParams) == before


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
