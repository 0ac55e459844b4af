"""Pictures of data."""

from __future__ import annotations

import numpy as np

from foreloom.data.formats.reader import open_source
from foreloom.data.stream.replay import ReplayedWindow, WindowFacts
from foreloom.report.data_figures import dataset_figure, replay_figure, synthetic_figure
from foreloom.report.style import BLUE, MUTED, ORANGE


def test_a_data_set():
    figure = dataset_figure({f"s{i}": (np.arange(0, 18, 2), np.arange(9.0)) for i in range(3)}, np.array([9, 9, 700]))
    assert figure.axes[0].lines[0].get_xdata().max() == 16
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["s0", "s1", "s2", "Lengths of 3 series (time steps)"]
    histogram = figure.axes[-1]
    assert histogram.get_xscale() == "log"
    assert sum(bar.get_height() for bar in histogram.patches) == 3
    lone = dataset_figure({"s": (np.arange(9), np.arange(9.0))}, np.array([9])).axes[-1]
    assert (lone.get_xscale(), sum(bar.get_height() for bar in lone.patches)) == ("linear", 1)


def test_synthetic_series_of_every_kind():
    titles = [ax.get_title(loc="left") for ax in synthetic_figure(open_source("synth://patterns?num_series=3")).axes]
    assert titles[:3] == ["trend", "seasonal", "noise"]
    titles = [ax.get_title(loc="left") for ax in synthetic_figure(open_source("synth://patterns")).axes]
    assert sorted(titles) == ["mixed", "noise", "seasonal", "seasonal", "trend", "trend"]


def test_a_replayed_window_tells_targets_from_covariates():
    facts = WindowFacts(7, "shops", 0, "s", 5, 3, 0.0, 4.0, missing_share=0.0, num_infinite=0, largest_jump=1.0)
    sales, promo = np.arange(5.0), np.array([0.0, 1, 0, 1, 1])
    figure = replay_figure([ReplayedWindow(facts, np.stack([sales, promo]), num_targets=1)])
    (ax,) = figure.axes
    rows = [line for line in ax.lines if line.get_linestyle() == "-"]  # the cut is dotted
    drawn = {line.get_color(): line.get_ydata().tolist() for line in rows}
    assert drawn == {MUTED: promo.tolist(), BLUE: [0, 1, 2], ORANGE: [3, 4]}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["covariates", "context", "horizon"]
