"""The season length that belongs to a pandas frequency, as GluonTS's `get_seasonality` (so D and W have none)."""

from __future__ import annotations

import difflib
import re

_SEASONS = {"s": 3600, "min": 1440, "h": 24, "B": 5, "ME": 12, "MS": 12, "QE": 4, "QS": 4}
_NO_SEASON = {
    "D", "W", "YE", "YS", "BYE", "BYS", "BME", "BMS", "BQE", "BQS", "SME", "SMS", "C", "CBME", "CBMS", "bh", "cbh",
    "ms", "us", "ns", "REQ", "FY5253", "FY5253Q", "WOM", "LWOM",
}  # fmt: skip
_OLD_SPELLINGS = {
    "S": "s", "T": "min", "H": "h", "L": "ms", "U": "us", "N": "ns", "M": "ME", "Q": "QE", "BM": "BME", "BQ": "BQE",
    "SM": "SME", "CBM": "CBME", "BH": "bh", "CBH": "cbh", "Y": "YE", "A": "YE", "AS": "YS", "BY": "BYE", "BA": "BYE",
    "BAS": "BYS",
}  # fmt: skip
_SECONDS = {"s": 1, "min": 60, "h": 3600, "D": 86400}


def season_length(freq: str) -> int:
    """Steps of one season at a pandas frequency alias, in the old or the new spelling: h 24, 30min 48, MS 12, D 1.

    A multiple divides the season (2h: 12); where it does not divide it evenly the season is 1. Raises ValueError for
    text that is not a frequency.
    """
    parts = re.findall(r"(\d*)([A-Za-z]+)((?:-[A-Z0-9]+)?)", freq)
    if not parts or "".join(f"{n}{name}{anchor}" for n, name, anchor in parts) != freq:
        raise ValueError(f"{freq!r} is not a frequency. Use a pandas alias such as h, 30min, D, W-SUN, MS or QS.")
    multiples = [(int(n or 1), _spelling(name, freq)) for n, name, _ in parts]
    n, name = multiples[0] if len(multiples) == 1 else _compound(multiples, freq)
    season = _SEASONS.get(name, 1)
    return season // n if n and season % n == 0 else 1


def _spelling(name: str, freq: str) -> str:
    name = _OLD_SPELLINGS.get(name, name)
    if name not in _SEASONS and name not in _NO_SEASON:
        close = difflib.get_close_matches(name, [*_SEASONS, *_NO_SEASON], n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"{freq!r} is not a frequency: pandas has no alias {name!r}.{hint}")
    return name


def _compound(multiples: list[tuple[int, str]], freq: str) -> tuple[int, str]:
    """1h30min as 90 of its smallest unit, min."""
    if not all(name in _SECONDS for _, name in multiples):
        raise ValueError(f"{freq!r} is not a frequency: only D, h, min and s add up.")
    smallest = min((name for _, name in multiples), key=_SECONDS.__getitem__)
    return sum(n * _SECONDS[name] for n, name in multiples) // _SECONDS[smallest], smallest
