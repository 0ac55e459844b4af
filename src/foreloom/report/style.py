"""The look of every figure: colours that survive colour blindness and dark mode, and files whole or absent."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from foreloom.files import whole_or_absent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

PAPER, INK, MUTED, GRID, BLUE, ORANGE = "#ffffff", "#1f2328", "#6e7781", "#d8dee4", "#0072b2", "#d55e00"
"""Blue and orange are those of Okabe and Ito (2008)."""
DARK = {
    PAPER: "#161b22",
    INK: "#e6edf3",
    MUTED: "#9198a1",
    GRID: "#30363d",
    BLUE: "#56b4e9",
    ORANGE: "#f0883e",
}
"""What each colour becomes where the reader's system is dark."""
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
STYLE: dict[str, Any] = {
    "axes.edgecolor": GRID,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.columnspacing": 1.3,
    "legend.frameon": False,
    "legend.handlelength": 1.3,
    "legend.handletextpad": 0.5,
    "legend.labelcolor": INK,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "foreloom",
    "text.color": INK,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in `STYLE`, whatever the user's own matplotlib settings."""

    @functools.wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def check_picture_name(path: str | Path) -> str:
    """The kind of picture that a name asks for: svg, png or pdf. ValueError for another ending."""
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in ("svg", "png", "pdf"):
        raise ValueError(f"{path}: a picture's name must end in .svg, .png or .pdf.")
    return kind


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .svg, .png or .pdf by the name's ending, whole or not at all; the path is returned.

    An SVG is the same bytes for the same figure, and follows the reader's dark mode.
    """
    path = Path(path)
    kind = check_picture_name(path)
    with whole_or_absent(path) as beside:
        beside.write_bytes(figure_svg(figure).encode() if kind == "svg" else _render(figure, kind))
    return path


def figure_svg(figure: Figure) -> str:
    """The figure as SVG text that follows the reader's dark mode and fonts."""
    svg = _render(figure, "svg").decode()
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", FONTS, svg)
    rules = "".join(
        f'[style*="{paint}: {light}"]{{{paint}:{dark}!important}}'
        for light, dark in DARK.items()
        for paint in ("fill", "stroke")
    )
    return svg.replace("<defs>", f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>\n <defs>", 1)


def _render(figure: Figure, kind: str) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=200, metadata=undated[kind])
    return buffer.getvalue()
