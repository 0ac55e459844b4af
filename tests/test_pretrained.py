"""The model that comes with foreloom: it is small, says what it is, needs no network, and does what its page says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import foreloom
from foreloom import run
from foreloom.config.shipped import shipped_models
from foreloom.data.tables.options import TableOptions
from foreloom.evaluation.by_name import forecasters_by_name
from foreloom.models import registry
from foreloom.models.chronos2.architecture import Architecture
from foreloom.run.recipe import found_model

ROOT = Path(__file__).resolve().parents[1]
FOLDER = shipped_models()["small"]


@pytest.fixture(scope="module")
def small():
    return foreloom.from_pretrained("small", device="cpu")


def test_it_is_small_and_its_card_says_what_it_is_made_of():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 10e6
    assert sorted(file.name for file in FOLDER.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    _, header, card = (FOLDER / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(header)
    assert (facts["license"], facts["library_name"], facts["pipeline_tag"]) == (
        "apache-2.0", "foreloom", "time-series-forecasting",
    )  # fmt: skip
    training = run.load("small").sections["training"]
    for said in (
        "synthetic",
        f"{training.steps:,} steps",
        f"seed {training.seed}",
        "CPU hours",
        "report half",
        "AMD EPYC",
    ):
        assert said in card, said


def test_the_recipe_makes_a_model_of_that_architecture_from_synthetic_series_alone():
    sections = run.load("small").sections
    assert all(source.path.startswith("synth://") for source in sections["data"].sources)
    with torch.device("meta"):
        module = registry.get("chronos2").build(sections["model"], sections["data"])
    published = Architecture.of(module).written("float32")
    assert published == json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))


def test_every_door_takes_its_name_from_anywhere(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Path(small.folder) == FOLDER
    assert list(forecasters_by_name(["small"], torch.device("cpu"))) == ["small", "seasonal-naive"]
    with pytest.raises(ValueError, match="Did you mean small?"):
        forecasters_by_name(["smal"], torch.device("cpu"))
    with pytest.raises(ValueError, match="Did you mean small?"):
        foreloom.from_pretrained("smal")
    recipe = run.load("chronos2-finetune", ["model.pretrained=small"], need_data=False)
    assert found_model(recipe).pretrained == str(FOLDER)


def test_covariates_are_passed_over_and_that_is_said(small):
    days = pd.date_range("2024-01-01", periods=90, freq="D")
    table = pd.DataFrame({"item_id": "a", "timestamp": days, "target": 5 + np.sin(np.arange(90) * 2 * np.pi / 7)})
    plain = small.predict_df(table, prediction_length=7)
    said: list[str] = []
    priced = small.predict_table(table.assign(price=np.arange(90.0) ** 2), None, TableOptions(), 7, say=said.append)
    pd.testing.assert_frame_equal(plain, priced)
    assert "covariates passed over" in said[0]
    priced = table.assign(price=np.arange(90.0) ** 2)
    past = {"target": priced["target"], "past_covariates": {"price": priced["price"]}}
    for door in (
        lambda: small.predict_df(priced, prediction_length=7),
        lambda: small.predict([past], prediction_length=7),
        lambda: small.cross_validation(priced, prediction_length=7),
    ):
        with pytest.warns(UserWarning, match="covariates are passed over"):
            door()


def test_its_quantiles_never_cross(small):
    weeks = np.tile(np.random.default_rng(0).normal(100, 10, 7), 9)
    for series in (weeks, np.arange(60.0), np.full(60, 5.0), 1e12 + weeks):
        (forecast_VHQ,) = small.predict([series], 100, small.forecaster.quantile_levels)
        assert (np.diff(forecast_VHQ, axis=-1) >= 0).all()
        (unasked_VHQ,) = small.predict([series], 14, [0.9, 0.13, 0.5])
        assert (unasked_VHQ[..., 1] <= unasked_VHQ[..., 2]).all() and (unasked_VHQ[..., 2] <= unasked_VHQ[..., 0]).all()


def test_it_behaves_on_planted_series_as_its_page_says(small, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import planted_series as planted

    for period in planted.SEASONS:
        assert planted.error_ratio(small.forecaster, planted.seasonal(period)) < 1.2, period
    assert planted.error_ratio(small.forecaster, planted.calm()) < 1.0, "better than the last value"
    assert planted.error_ratio(small.forecaster, planted.walking()) < 1.1
    for share, most in ((0.01, 0.05), (0.03, 0.05)):
        assert abs(planted.last_step_error(small.forecaster, planted.growing(share))) < most, share
