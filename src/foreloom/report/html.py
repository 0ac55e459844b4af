"""Pieces of a web page that needs nothing outside it: the document, cards, lists of facts, pictures; HTML as text."""

from __future__ import annotations

import base64
import html
import re
import struct
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from foreloom.monitoring import console
from foreloom.monitoring.console import Bar, Curve, Loads

MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_HEADER_BYTES = 4096
"""Of a PNG, before its pixels begin."""

escape = html.escape


NARROW_POINTS = 360
"""A picture up to this width holds one panel."""


def document(title: str, header: str, body: str) -> str:
    """A whole page; `header` stands below the title."""
    style = files("foreloom.report").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · foreloom</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<div class="brand">foreloom</div>
<h1>{escape(title)}</h1>
{header}</header>
{body}</main>
</body>
</html>
"""


def grid(cards: str, kind: str = "") -> str:
    """Cards beside each other, as many as there is room for; nothing where there are none."""
    return f'<div class="grid{kind and f" {kind}"}">{cards}</div>' if cards else ""


def fact_cards(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """A card a section with its rows, label and value."""
    return "".join(
        f'<div class="card"><h3>{escape(title)}</h3>{_facts(rows)}</div>' for title, rows in sections.items() if rows
    )


def image(content: bytes, suffix: str, alt: str, kind: str = "card", most_points: float | None = None) -> str:
    """As a data URL: an SVG shown so cannot run scripts, and its ids cannot clash with another's.

    It is as wide as its card, but where `most_points` are given no wider than that.
    """
    source = f"data:{MEDIA_TYPES[suffix.lower()]};base64,{base64.b64encode(content).decode()}"
    most = "" if most_points is None else f' style="--most:{most_points:.0f}pt"'
    return f'<figure class="{kind}"><img src="{source}" alt="{escape(alt)}"{most}></figure>'


def width_points(content: bytes) -> float | None:
    """How wide a picture is drawn: as an SVG says, or a PNG by its pixels and their density. None if neither does."""
    if svg := re.search(rb'<svg[^>]* width="([\d.]+)pt"', content):
        return float(svg[1])
    density = content.find(b"pHYs", 0, MOST_HEADER_BYTES)
    if not content.startswith(PNG_SIGNATURE) or density < 0:
        return None
    pixels, pixels_a_metre = struct.unpack_from(">I", content, 16)[0], struct.unpack_from(">I", content, density + 4)[0]
    return 72 * pixels / (0.0254 * pixels_a_metre) if pixels_a_metre else None


def pictures(named: Iterable[tuple[bytes, str, str]]) -> str:
    """A grid of (content, suffix, what it shows): those of one panel stand beside each other; wider ones get a row, to
    be swiped through on a phone."""
    images = []
    for content, suffix, alt in named:
        width = width_points(content)
        kind = "card" if width and width <= NARROW_POINTS else "card wide scroll"
        images.append(image(content, suffix, alt, kind, width))
    return grid("".join(images), "pictures")


def value_text(value: Any) -> str:
    """A value for people; nothing for None."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case list():
            return ", ".join(map(value_text, value))
        case dict():
            return ", ".join(f"{key} {value_text(item)}" for key, item in value.items())
        case _:
            return str(value)


def _facts(rows: Mapping[str, Any]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(str(k))}</dt><dd>{_fact(v)}</dd>' for k, v in rows.items())}</dl>"


def _fact(value: Any) -> str:
    """Bars are drawn: those of characters are too wide for a card. Other pictures are as on the console."""
    match value:
        case Bar():
            filled, hatched = _percent(value.share), _percent(value.peak_share) - _percent(value.share)
            widths = f'<i style="width:{filled}%"></i><i style="width:{max(hatched, 0)}%"></i>'
            return f'<span class="bar">{widths}</span> {escape(value.text)}'
        case Loads():
            return escape(console.text(value))
        case Curve():
            return f'<span class="levels">{escape(console.text(value))}</span>'
        case _:
            return escape(value_text(value))


def _percent(share: float) -> int:
    return round(100 * min(share, 1.0))
