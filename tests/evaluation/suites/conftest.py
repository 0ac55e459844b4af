"""A fake hub that runs, and processes that fetch from it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_hub import FakeHub
from huggingface_hub import HfApi


@pytest.fixture
def fake_hub(monkeypatch):
    """A running hub without repositories."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with FakeHub() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def hub(fake_hub) -> HfApi:
    """Our side of it."""
    return HfApi(endpoint=fake_hub.url)


SCRIPT = """
import os, sys
from huggingface_hub import HfApi
from foreloom.evaluation.suites.fetch import FetchEntry, fetch
entry = FetchEntry("a", "owner/sets", "a", "a")
try:
    print(fetch([entry], sys.argv[1], hub=HfApi(), overwrite="OVERWRITE" in os.environ).lines())
except ValueError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def in_a_process(tmp_path):
    """Starts a process that fetches data set `a` of `owner/sets` with huggingface_hub under the given environment."""

    def start(out: Path, **environment: str) -> subprocess.Popen:
        names = ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
        kept = {key: value for key, value in os.environ.items() if key.upper() not in names}
        kept |= {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(out)],
            env=kept | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
