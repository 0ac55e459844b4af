"""Fixtures every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data and oracle pack beside a developer's checkout; tests that read it skip visibly where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data pack at {SHARED}")
    return SHARED
