"""Labels of runs: which are file names, and how a learning rate is written in one and read back, here and by others."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

MOST_BYTES = 200
"""Of a label: file systems take 255, and `config_<label>.json` is longer."""
SWEEP_SUFFIX = "_lr_sweep"
"""Of a folder whose runs differ in learning rate."""
_MARK = "_lr_"
_SHORT = 7
"""Characters of a number that is written as it is."""


def check_label(label: str) -> None:
    """ValueError for a label that cannot be the name of a file everywhere."""
    wrong = re.search(r'[/\\:*?"<>|\x00-\x1f]', label)
    if not label or wrong or label != label.strip(" .") or len(label.encode()) > MOST_BYTES:
        what = f"has {wrong.group()!r}" if wrong else "begins or ends with a point or a space, is empty or too long"
        raise ValueError(
            f"the label {label!r} is no file name: it {what}. Labels name results/<study>/<label>.csv; use letters, "
            "digits, and - _ . = between them."
        )


def check_distinct(labels: Iterable[tuple[str, str]]) -> None:
    """ValueError where two runs of a folder, (folder, label) each, would write the same file, on systems that take
    capitals and small letters for the same too."""
    seen: dict[tuple[str, str], str] = {}
    twice = []
    for folder, label in labels:
        check_label(label)
        key = folder.casefold(), label.casefold()
        if key in seen:
            twice.append(repr(label) if seen[key] == label else f"{label!r} beside {seen[key]!r}")
        seen.setdefault(key, label)
    if twice:
        raise ValueError(
            f"labels name files, and these are there twice: {', '.join(dict.fromkeys(twice))}. Put what differs into "
            "the label, as in label='16d_gelu'."
        )


def with_learning_rate(label: str, learning_rate: float) -> str:
    """`32d_lr_0.01`; `32d_lr_-2.5` where the rate is 10 to a short power. `learning_rate_in` gives exactly the same."""
    text = repr(float(learning_rate))
    if len(text) > _SHORT:
        exponent = round(math.log10(learning_rate), 4)
        text = f"{exponent:.4f}".rstrip("0").rstrip(".") if 10**exponent == learning_rate else text
    return f"{label}{_MARK}{text}"


def split_learning_rate(stem: str) -> tuple[str, float | None]:
    """The label without its learning rate, and the rate; None where it names none. See `learning_rate_in`."""
    base, mark, rest = stem.rpartition(_MARK)
    text, line, behind = rest.partition("_")  # _seed_3
    rate = _read(text) if mark else None
    return (stem, None) if rate is None else (f"{base}{line}{behind}", rate)


def learning_rate_in(stem: str) -> float | None:
    """The learning rate that a file's name tells, None where it tells none. Read are what is written here (0.01,
    1e-05; -2.25 for 10^-2.25, as the newest files of hansgundlach/Experimental_Progress have it) and that repository's
    older dialects: 10e-2 and 10em03 (10^-2, 10^-3), 18e2 without a sign (1.8 x 10^-2), 003 and 0032 (0.003, 0.0032),
    and 01 (0.1)."""
    return split_learning_rate(stem)[1]


def _read(text: str) -> float | None:
    if re.fullmatch(r"-\d+(\.\d+)?", text):
        return 10 ** float(text)
    if found := re.fullmatch(r"10e(?:-|m)0*(\d+)", text):
        return float(f"1e-{found[1]}")
    if found := re.fullmatch(r"(\d)(\d?)e0*(\d+)", text):  # the point and the sign were left out
        return float(f"{found[1]}.{found[2] or 0}e-{found[3]}")
    if re.fullmatch(r"0\d", text):
        return float(f"0.{text[1:]}")
    if re.fullmatch(r"0\d{2,}", text):
        return float(f"0.{text}")
    if re.fullmatch(r"\d+(\.\d+)?(e-\d+)?", text):
        return float(text)
    return None
