"""Pictures of data."""

from __future__ import annotations

import numpy as np

from foreloom.data.formats.reader import open_source
from foreloom.report.data_figures import dataset_figure, synthetic_figure


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
