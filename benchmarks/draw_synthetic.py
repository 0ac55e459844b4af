"""Draws the pictures of docs/data.md: six series of every synthetic process, or of those that are named.

    python benchmarks/draw_synthetic.py [kernel ...]

Each is what `foreloom data synth NAME --length 200 --plot docs/pictures/synthetic/NAME.svg` draws.
"""

from __future__ import annotations

import sys
from pathlib import Path

from foreloom.data.formats.reader import open_source
from foreloom.data.synthetic import registry
from foreloom.data.synthetic.source import SyntheticSource
from foreloom.report.data_figures import synthetic_figure
from foreloom.report.style import save_figure

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures" / "synthetic"
SETTINGS = {"tsmixup": f"&sources={ROOT}/examples/data/m4_hourly.parquet,kernel"}
"""Beside number and length, which keep the files below 60 kB."""


def main() -> None:
    for name in sys.argv[1:] or registry.names():
        source = SyntheticSource(f"synth://{name}?num_series=100&length=200{SETTINGS.get(name, '')}", open_source)
        path = save_figure(synthetic_figure(source), FOLDER / f"{name}.svg")
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
