"""The folder a checkpoint leaves for others: its model card, and the one line that puts it on the hub."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import foreloom
from foreloom import run

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
SMALL = ["model.d_model=32", "model.d_ff=32", "model.num_layers=1", "training.batch_size=2", "training.device=cpu"]
SHORT = ["data.context_length=64", "data.prediction_length=16", "data.min_past=16", "monitoring.trackers=[none]"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run, and one that went on from it."""
    folder = tmp_path_factory.mktemp("runs")
    run.train("chronos2-test", [*SMALL, *SHORT, "training.steps=3", "training.save_steps=2"], out=folder / "first")
    start = ["model.size=null", "model.d_model=null", "model.d_ff=null", "model.num_layers=null"]
    start += [f"model.pretrained={folder / 'first'}", "training.steps=1"]
    run.train("chronos2-test", [*SMALL, *SHORT, *start], out=folder / "tuned")
    return folder


def card(folder: Path) -> tuple[dict, str]:
    """The header of a model card, and the rest."""
    _, header, body = (folder / "hf" / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), body


def test_a_model_card_says_what_the_run_did(runs):
    header, body = card(runs / "first" / "checkpoints" / "final")
    assert header == {
        "library_name": "foreloom",
        "tags": ["chronos2"],
        "pipeline_tag": "time-series-forecasting",
    }
    assert body.startswith("\n# first\n") and "the weights after step 3 of a run" in body
    for words in ("| steps | 3", "| start | random values, size test |", "m4_hourly.parquet", "| learning rate |"):
        assert words in body, words
    assert "after step 2 of a run" in card(runs / "first" / "checkpoints" / "step-00000002")[1]
    header, body = card(runs / "tuned" / "checkpoints" / "final")
    assert "base_model" not in header and str(runs) not in body, "no path of this machine"
    (snippet,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    names: dict = {}
    exec(
        snippet.replace("OWNER/NAME", str(runs / "tuned" / "checkpoints" / "final" / "hf")).split("forecast =")[0],
        names,
    )
    assert isinstance(names["model"], foreloom.forecast.Model)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a client asks that uploads a small folder."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((self.path, asked))
        if self.path.endswith("/preupload/main"):
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(asked)["files"]]
            self.answer({"files": [{**one, "shouldIgnore": False, "oid": None} for one in files]})
        else:  # the repository is made, the commit is taken
            self.answer({"url": f"{self.server.url}/me/mine", "commitUrl": f"{self.server.url}/me/mine/commit/1",
                         "commitOid": "1", "name": "me/mine", "id": "1"})  # fmt: skip

    def do_GET(self) -> None:
        self.answer({"name": "me", "id": "me/mine", "sha": "0", "siblings": []})

    def answer(self, values: dict) -> None:
        body = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


def test_the_line_of_the_guide_puts_it_on_the_hub(runs, tmp_path):
    (line,) = re.findall(r"^hf upload .*$", GUIDE.read_text(), flags=re.MULTILINE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": "hf_made_up",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
    }
    try:
        (tmp_path / "runs").symlink_to(runs)
        words = line.replace("OWNER/NAME", "me/mine").split()
        done = subprocess.run(
            [str(Path(sys.executable).with_name("hf")), *words[1:]],
            cwd=tmp_path,
            env={**os.environ, **settings, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    (commit,) = [asked for path, asked in server.asked if "/commit/" in path]
    lines = [json.loads(one) for one in commit.splitlines()]
    sent = {one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"}
    hf = runs / "first" / "checkpoints" / "final" / "hf"
    assert sent == {path.name: path.read_bytes() for path in hf.iterdir()}
    assert sent.keys() == {"README.md", "config.json", "model.safetensors"}
