"""Warnings that point at the line of the user's program, however deep in here they are made."""

from __future__ import annotations

import sys
import warnings

_OURS = ("foreloom", "contextlib")


def warn_user(sentence: str) -> None:
    """Warn, at the line that called into foreloom."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, stacklevel=level)
