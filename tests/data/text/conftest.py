"""What tests of text share: a cache of their own, and a small corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def corpus_file(tmp_path) -> Path:
    """Sixty documents of 1 to 119 letters, each of one letter of its own kind, as JSON lines."""
    path = tmp_path / "letters.jsonl"
    lengths = [1 + (37 * n) % 119 for n in range(60)]
    path.write_text("".join(json.dumps({"text": chr(65 + n) * length}) + "\n" for n, length in enumerate(lengths)))
    return path
