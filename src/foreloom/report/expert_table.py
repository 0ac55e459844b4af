"""How experts share kinds of series, as a table with its notes and as a heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foreloom.evaluation.specialization import NUM_PERMUTATIONS, KindUse, Specialization
from foreloom.report.rendering import TitledTable
from foreloom.report.style import BLUE, INK, PAPER, styled
from foreloom.report.tables import Cell, Column, ScoreTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_INCHES = (0.72, 0.36)
TITLE_CHARACTERS_PER_INCH = 9
DARK_SHARE = 0.7
"""From this share of the darkest blue on, a cell's number is written in the colour of the paper."""


@dataclass(frozen=True)
class ExpertReport:
    """What was found, a `Specialization` a layer."""

    layers: tuple[Specialization, ...]
    layer: int
    """The one to be shown, from 1."""
    kinds_by: str
    """Where the kinds come from."""
    num_left_out: int
    """Series with nothing observed in their context."""
    context_length: int

    @property
    def shown(self) -> Specialization:
        return self.layers[self.layer - 1]


def expert_table(report: ExpertReport, title: str) -> TitledTable:
    """A row a kind: series, the share of its choices that falls on each expert, their entropy, mean probabilities."""
    found = report.shown
    numbers = range(len(found.total.share_E))
    columns = [
        Column("Kind", "text"),
        Column("Series", "count"),
        *(Column(f"Expert {i}", "score") for i in numbers),
        Column("Entropy", "score"),
        *(Column(f"Mean p {i}", "score") for i in numbers),
    ]
    rows = [_row(use) for use in found.kinds]
    return TitledTable(title, ScoreTable(columns, rows, [_row(found.total)]), tuple(_notes(report)))


def _row(use: KindUse) -> list[Cell]:
    return [use.kind, use.num_series, *use.share_E.tolist(), use.entropy, *use.probability_E.tolist()]


def _notes(report: ExpertReport) -> list[str]:
    found = report.shown
    notes = [
        f"Kinds {report.kinds_by}, contexts of the newest {report.context_length:,} steps. Expert: share of a kind's "
        "choices. Entropy: of these shares, 1 is even. Mean p: the router's probability before the choice.",
        _information(found),
        _never_chosen(found.unused) if found.unused else "Every expert is used.",
    ]
    if len(report.layers) > 1:
        bits = ", ".join(f"{layer.information_bits:.3f} ({layer.chance_95_bits:.3f})" for layer in report.layers)
        notes.append(f"Bits layer by layer, and what chance stays under in 19 cases of 20: {bits}.")
    if report.num_left_out:
        notes.append(f"Series left out, with nothing observed in their context: {report.num_left_out:,}.")
    return notes


def _never_chosen(experts: Sequence[int]) -> str:
    return f"Never chosen: expert{'s' * (len(experts) > 1)} {', '.join(map(str, experts))}."


def _information(found: Specialization) -> str:
    if len(found.kinds) == 1:
        return "All series are of one kind, so there is nothing to tell kinds apart by."
    verdict = (
        "Kinds go to different experts."
        if found.p_value <= 0.05
        else "That is no more than chance gives: no specialisation is seen."
    )
    return (
        f"Mutual information of kind and expert: {found.information_bits:.3f} of at most {found.most_bits:.3f} bits; "
        f"kinds dealt at random give {found.chance_bits:.3f}, and under {found.chance_95_bits:.3f} in 19 cases of 20 "
        f"(p = {found.p_value:.3f}, {NUM_PERMUTATIONS} deals). {verdict}"
    )


@styled
def expert_figure(found: Specialization, name: str) -> Figure:
    """A cell a kind and expert with the share in it, the darker the larger; all series below."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    uses = [*found.kinds, found.total]
    num_experts = len(found.total.share_E)
    width, height = CELL_INCHES
    size = (max(width * num_experts + 1.6, 3.6), height * len(uses) + 0.95)
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    largest = max(use.share_E.max() for use in uses)
    # The total stands apart.
    places = [*range(len(found.kinds)), len(found.kinds) + 0.25]
    for place, use in zip(places, uses, strict=True):
        for expert, share in enumerate(use.share_E):
            strength = float(share / largest)
            # Rectangles and not an image: their blue follows the reader's dark mode.
            ax.add_patch(Rectangle((expert, place), 0.96, 0.94, facecolor=BLUE, alpha=strength, linewidth=0))
            colour = PAPER if strength > DARK_SHARE else INK
            ax.text(expert + 0.48, place + 0.47, f"{share:.0%}", ha="center", va="center", color=colour)
    ax.set_xlim(0, num_experts)
    ax.set_ylim(places[-1] + 1, 0)
    ax.set_xticks([i + 0.48 for i in range(num_experts)], [str(i) for i in range(num_experts)])
    ax.set_yticks([place + 0.47 for place in places], [f"{use.kind} ({use.num_series:,})" for use in uses])
    for label in ax.get_yticklabels():
        label.set_parse_math(False)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines["bottom"].set_visible(False)
    ax.set_xlabel("expert")
    room = int(size[0] * TITLE_CHARACTERS_PER_INCH)
    short = name if len(name) <= room else name[: room - 1] + "…"
    figure.suptitle(
        f"Choices of each kind by expert\n{short}", x=0.02, ha="left", fontsize=10, fontweight="bold"
    ).set_parse_math(False)
    return figure
