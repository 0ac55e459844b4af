"""Fixtures of the lab's tests."""

from __future__ import annotations

import pytest

import in_process
from foreloom.lab import runs


@pytest.fixture(scope="module")
def trainings_here():
    """Trainings of a study run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "run_process", in_process.run_process)
        yield
