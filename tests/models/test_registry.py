"""Families are found by name and by folder; what is not one gets a sentence."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from foreloom import run
from foreloom.cli import app
from foreloom.config.located import RecipeError
from foreloom.models import registry
from foreloom.report.step_windows import batch_of_step


def test_names_lead_to_records():
    for name in registry.names():
        assert registry.get(name).name == name


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="no model family 'chronos-2'.*Did you mean chronos2"):
        registry.get("chronos-2")


def test_folders_that_are_no_model_of_ours(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        registry.recognise(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "model_type": "bert"}))
    with pytest.raises(ValueError, match="does not know.*BertModel"):
        registry.recognise(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": None, "model_type": "t5"}))
    with pytest.raises(ValueError, match="does not know.*t5"):
        registry.recognise(tmp_path)
    (tmp_path / "config.json").write_text('{\n"model_type": "t5",,\n}')
    with pytest.raises(ValueError, match=r"config\.json:2: not valid JSON"):
        registry.recognise(tmp_path)


def test_another_package_brings_a_family(tmp_path, monkeypatch):
    """Found by its entry point, trained by the recipe that names it, with the data section it asks for."""
    installed = tmp_path / "site" / "wobbly-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: wobbly\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        f"[{registry.ENTRY_POINTS}]\n"
        "toy_tokens = toy_text:TOY_TOKENS\nchronos2 = toy_text:TOY_TOKENS\nbent = json:dumps\n"
        "gone = json:dump_all\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert registry.names()[-3:] == ("bent", "gone", "toy_tokens")
    assert registry.get("toy_tokens").name == "toy_tokens"
    assert registry.get("chronos2").name == "chronos2", "a name of ours stays ours"
    with pytest.raises(ValueError, match=r"the entry point bent = json:dumps of foreloom\.families is no ModelFamily"):
        registry.get("bent")
    with pytest.raises(ValueError, match=r"the entry point gone = json:dump_all of .* cannot be loaded \(.*dump_all"):
        registry.get("gone")
    with pytest.raises(ValueError, match="Did you mean toy_tokens"):
        registry.get("toy_token")


def test_a_recipe_trains_a_family_of_another_package_on_data_of_its_own(tmp_path, monkeypatch):
    """A recurrent one, whose state goes on from batch to batch: trained, stopped, resumed, looked at."""
    installed = tmp_path / "site" / "wobbly-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: wobbly\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\ntoy_recurrent = toy_text:TOY_RECURRENT\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    recipe = tmp_path / "text.yaml"
    recipe.write_text(
        "model: {family: toy_recurrent}\ndata: {is_stream: true}\nmonitoring: {log_steps: 1, trackers: [none]}\n"
        "training: {steps: 4, batch_size: 6, device: cpu, save_steps: 2}\n"
        "optimizer: {schedule: constant}\n"
    )
    whole = run.train(recipe, out=tmp_path / "whole")
    run.train(recipe, ["training.steps=2"], out=tmp_path / "parts")
    parts = run.train(recipe, out=tmp_path / "parts", resume=True)
    assert (parts.step, parts.loss) == (whole.step, whole.loss) == (4, whole.loss)
    log = (tmp_path / "whole" / "training.log").read_text()
    assert "50 blocks, 100% of the samples" in log and "streams" in log
    dataset, drawn = batch_of_step(tmp_path / "whole", 3)
    assert dataset.facts(drawn)[0] == {"sample": 12, "block": 12}
    done = CliRunner().invoke(
        app, ["data", "replay", str(tmp_path / "whole"), "3", "--out", str(tmp_path / "step.csv")]
    )
    assert done.exit_code == 0 and "Step 3 of whole: 6" in done.output, done.output
    assert (tmp_path / "step.csv").read_text().splitlines()[:2] == ["sample,block", "12,12"]
    with pytest.raises(RecipeError, match="data.is_strean: unknown setting. Did you mean is_stream"):
        run.load(recipe, ["data.is_strean=true"])
    with pytest.raises(RecipeError, match=r"training\.epochs: a stream has no end"):
        run.load(recipe, ["training.steps=null", "training.epochs=2"])
