"""docs/new_family.md is true: its file, entry point and recipe make a family that is trained, resumed and asked."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import foreloom
from foreloom import run
from foreloom.cli import app
from foreloom.data.text.section import TextData
from foreloom.models import registry
from foreloom.models.common.count import parameter_totals
from foreloom.models.match import match_parameters

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "new_family.md").read_text()


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL).group(1)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package of the guide, as pip leaves it."""
    site = tmp_path / "site"
    (site / "my_gru-1.0.dist-info").mkdir(parents=True)
    (site / "my_gru-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my_gru\nVersion: 1.0\n")
    entry = re.sub(r'project\.entry-points\."(.*)"', r"\1", block("toml")).replace('"', "")
    (site / "my_gru-1.0.dist-info" / "entry_points.txt").write_text(entry)
    (site / "my_gru.py").write_text(block("python"))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    importlib.invalidate_caches()
    (tmp_path / "gru.yaml").write_text(block("yaml"))
    (tmp_path / "text.txt").write_text("so it goes on and on and on. " * 60)
    return tmp_path


def test_a_family_of_one_file_is_trained_resumed_matched_and_asked(installed):
    after_imports = block("python").split("\n\n\n", 1)[1].splitlines()
    assert sum(bool(line.strip()) for line in after_imports) <= 76
    log = ["monitoring.log_steps=1", "monitoring.trackers=[none]"]
    whole = run.train(installed / "gru.yaml", log, out=installed / "whole")
    run.train(installed / "gru.yaml", [*log, "training.steps=9"], out=installed / "parts")
    parts = run.train(installed / "gru.yaml", log, out=installed / "parts", resume=True)
    lines = map(json.loads, (installed / "whole" / "metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if line["kind"] == "step"]
    assert parts.loss == whole.loss == losses[-1] < losses[0] - 0.3

    model = foreloom.from_pretrained(installed / "whole", device="cpu")
    assert model.family is registry.get("gru")
    assert model.generate(["so it "], max_new_tokens=5, seed=1) == model.generate(["so it "], max_new_tokens=5, seed=1)
    totals = parameter_totals(model.family.parts(model.module))
    assert (totals.embedding, totals.non_embedding) == (257 * 64, 2 * 6 * 64 * 65)
    text = TextData(sources=run.load(installed / "gru.yaml").sections["data"].sources, tokenizer="bytes")
    found = match_parameters(model.family, model.family.config(size="tiny"), text, 200_000)
    assert abs(found.error) < 0.02


def test_the_lab_and_the_launchers_know_it(installed, monkeypatch):
    monkeypatch.chdir(installed)
    (installed / "text.txt").write_text(GUIDE)

    def told(*words: str) -> str:
        result = CliRunner().invoke(app, [*words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert re.search(r"32d +32 +2 .*128d +128 +2 ", told("lab", "gen", "--table", "32,128", "--arch", "gru.yaml",
                     "depth_rule=fixed", "steps=5"), re.DOTALL)  # fmt: skip
    checked = told("lab", "mup", "coord-check", "gru.yaml", "optimizer.learning_rate=0.003", "--widths", "64,128,256",
                   "--seeds", "2", "--steps", "2", "--kinds", "mup")  # fmt: skip
    assert "recurrent" in checked and "FAIL" not in checked
    (installed / "study.yaml").write_text(
        'study: gru\nrecipe: gru.yaml\nsettings: {steps: 3}\ngrid: {hidden_dim: [16, 32]}\nlabel: "{hidden_dim}d"\n'
    )
    assert "--array=0-1" in told("lab", "submit", "study.yaml", "--dry-run")
    assert "\nsrun " in told("launch", "slurm", "--nodes", "2", "--gpus", "1", "--dry-run", "train", "gru.yaml")


def test_its_tokens_one_by_one_are_those_at_once(installed):
    gru = registry.get("gru")
    model = gru.build(gru.config(size="tiny"), TextData(sources=({"path": "a"},), tokenizer="bytes"))
    gru.initialize(model, 0)
    memory, token_1T = model.memory(9), torch.tensor([[5, 9, 200, 3]])
    with torch.no_grad():
        for token in token_1T[0]:
            step_V = model.next_logits(token.view(1, 1), memory)
        torch.testing.assert_close(model.next_logits(token_1T, model.memory(9)), step_V, rtol=1e-4, atol=1e-5)
