"""A fit from end to end: what is learned is kept, what is not is left, what was stopped goes on."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from foreloom import from_pretrained
from foreloom.forecast import Model
from foreloom.forecast.asked import setting_of
from foreloom.models.chronos2.family import FAMILY as CHRONOS2
from foreloom.models.time_moe.family import FAMILY as TIME_MOE
from foreloom.monitoring.metrics_file import read_metrics
from foreloom.report.fit_page import fit_table, write_fit_page
from foreloom.tuning import candidates, fit
from foreloom.tuning.candidates import Pace, between

DAYS = pd.date_range("2024-01-01", periods=160)


def seasons(num=6, noise=0.05):
    rng = np.random.default_rng(0)
    wave = lambda n: 10 + np.sin(2 * np.pi * (np.arange(160) + n) / 8) + rng.normal(0, noise, 160)
    parts = [pd.DataFrame({"item_id": f"s{n}", "timestamp": DAYS, "target": wave(n)}) for n in range(num)]
    return pd.concat(parts).assign(promo=0.0)


@pytest.fixture
def base(tmp_path, tiny_chronos2):
    folder = tmp_path / "base"
    Model(CHRONOS2, tiny_chronos2).save_pretrained(folder)
    return folder


@pytest.fixture
def short(monkeypatch):
    """Two candidates of a few steps at a rate at which so small a model learns."""
    monkeypatch.setattr(candidates, "FIRST", ("full", "lora"))
    monkeypatch.setattr(candidates, "PROBED", 300.0)
    monkeypatch.setattr(candidates, "was_hot", lambda run_dir: False)
    monkeypatch.setattr(candidates, "MOST_CANDIDATES", 2)
    monkeypatch.setattr(candidates, "in_budget", lambda *_: (2, 40))


def test_what_is_better_is_kept_and_what_was_done_is_not_done_again(base, tmp_path, short, monkeypatch):
    model, out, said = from_pretrained(base, device="cpu"), tmp_path / "fitted", []
    before = model.predict(np.arange(60.0) % 8, 8)[0]
    found = model.fit(seasons(), 8, out, season_length=8, say=said.append, known_ahead="promo")
    assert found.windows.num == 8 and found.chosen is not None and found.sentence.startswith(f"keep {found.chosen}: 0.")
    names = [one.name for one in found.contenders]
    assert names == [
        "zero-shot",
        "lookbacks",
        "seasonal-naive",
        "full-0.003",
        "full-0.003, 50%",
        "lora-0.003",
        "lora-0.003, 50%",
    ]
    chosen = next(one for one in found.contenders if one.name == found.chosen)
    assert chosen.selection.is_sure and chosen.verdict.estimate < 1
    assert found.contenders[0].selection.estimate == 1
    np.testing.assert_array_equal(model.predict(np.arange(60.0) % 8, 8)[0], before)
    kept = from_pretrained(out, device="cpu")
    assert not np.allclose(kept.predict(np.arange(60.0) % 8, 8)[0], before)
    # Nothing that judges was trained on: neither those windows, nor their covariates.
    recipe = found.recipe.read_text()
    assert "holdout: 8" in recipe and "train.arrow" in recipe
    from foreloom.data.formats.reader import open_source

    assert set(open_source(out / "data" / "train.arrow").lengths) == {160 - 64}
    page = write_fit_page(found)
    assert page.read_text().count("<svg") + page.read_text().count("image/svg") >= 2 and "zero-shot" in page.read_text()
    assert fit_table(found).rows[0][0] == "zero-shot"
    # The same call: nothing is trained or scored, the answer is the same.
    monkeypatch.setattr(fit, "train", None)
    again = model.fit(seasons(), 8, out, season_length=8, known_ahead="promo")
    assert again.sentence == found.sentence and repr(again) == repr(found)
    # Where the last windows allow half of it only, they had a say, which the sentence does not deny.
    assert found.chosen == "full-0.003" and "which nothing was chosen by" in found.sentence
    monkeypatch.setattr(fit.verdict, "first_that_holds", lambda lasts: [*lasts][1])
    half = model.fit(seasons(), 8, out, season_length=8, known_ahead="promo")
    assert "where full-0.003, which was chosen before, has 0." in half.sentence and half.chosen == "full-0.003, 50%"
    assert from_pretrained(out).module.architecture.lookbacks == 6, "which is surely better where it is chosen"
    # And where they allow none of it, the weights as they were.
    monkeypatch.setattr(fit.verdict, "first_that_holds", lambda lasts: [*lasts][2])
    none = model.fit(seasons(), 8, out, season_length=8, known_ahead="promo")
    assert none.chosen == "lookbacks" and none.recipe is None and "lookbacks in its" in write_fit_page(none).read_text()
    kept = from_pretrained(out, device="cpu")
    assert torch.equal(kept.module.shared.weight, model.module.shared.weight)
    assert kept.module.architecture.lookbacks == 6 and model.module.architecture.lookbacks == 1
    with pytest.raises(ValueError, match="holds a fit with another prediction_length"):
        model.fit(seasons(), 9, out, season_length=8, known_ahead="promo")
    with pytest.raises(ValueError, match="base holds something else"):
        model.fit(seasons(), 8, base)
    # The folder has another model since: its scores would be those of the first, its weights mixed with tuned ones.
    from_pretrained(out, device="cpu").save_pretrained(base)
    with pytest.raises(ValueError, match="holds a fit with another content of the model"):
        model.fit(seasons(), 8, out, season_length=8, known_ahead="promo")


def test_what_is_not_surely_better_is_left(base, tmp_path, monkeypatch):
    """A rate of nothing at all: the candidates are the model as it was."""
    monkeypatch.setattr(candidates, "FIRST", ("full",))
    monkeypatch.setattr(candidates, "PROBED", 1e-6)
    monkeypatch.setattr(candidates, "MOST_CANDIDATES", 1)
    monkeypatch.setattr(candidates, "in_budget", lambda *_: (1, 2))
    monkeypatch.setattr(fit, "SCORING_SHARE", 1e-6)
    model, out = from_pretrained(base, device="cpu"), tmp_path / "fitted"
    found = model.fit(seasons(6), 8, out)
    assert found.notes[0] == "contenders are scored on 4 of the 6 series.", "no more than the budget has room for"
    assert found.notes[1].startswith("lookbacks was not tried: to score it takes too much of 10 minutes. Give ")
    assert [one.name for one in found.contenders][:2] == ["zero-shot", "seasonal-naive"]
    assert found.chosen is None and found.recipe is None
    assert found.sentence.startswith("keep zero-shot: no candidate is surely better")
    kept = from_pretrained(out, device="cpu")
    np.testing.assert_array_equal(kept.predict(np.arange(60.0), 8)[0], model.predict(np.arange(60.0), 8)[0])
    assert write_fit_page(found).is_file()


def test_what_was_stopped_goes_on(base, tmp_path, short, monkeypatch):
    """In folders whose names mean something in YAML."""
    base = base.rename(tmp_path / "the base: {a} #2")
    model, out, trained = from_pretrained(base, device="cpu"), tmp_path / "fitted [x]: y #3", []
    real = fit.train

    def stopping(recipe, overrides, **options):
        trained.append(options["out"].name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(recipe, [*overrides, "training.steps=2", "validation.steps=1"], **options)

    monkeypatch.setattr(fit, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        model.fit(seasons(2), 8, out)
    state = json.loads((out / "fit.json").read_text())
    assert [*state["contenders"]] == ["zero-shot", "lookbacks", "seasonal-naive", "full-0.003", "full-0.003, 50%"]
    found = model.fit(seasons(2), 8, out)
    assert trained == ["probe", "full-0.003", "lora-0.003", "lora-0.003"] and len(found.contenders) == 7


def test_what_began_before_there_were_lookbacks_goes_on(base, tmp_path, short, monkeypatch):
    """With the candidates it has; those after them look back, and their scoring is what the budget is asked for."""
    model, out = from_pretrained(base, device="cpu"), tmp_path / "fitted"
    real, costs = fit.train, []

    def train(recipe, overrides, **options):
        return real(recipe, [*overrides, "training.steps=2", "validation.steps=1"], **options)

    monkeypatch.setattr(fit, "train", train)
    with monkeypatch.context() as before:
        before.setattr(fit._Work, "_score_lookbacks", lambda *_: None)
        before.setattr(candidates, "MOST_CANDIDATES", 1)
        before.setattr(candidates, "FIRST", ("full",))
        assert "lookbacks" not in [one.name for one in model.fit(seasons(), 8, out, season_length=8).contenders]
    is_known = property(lambda work: fit.LOOKBACKS in work.state["contenders"])
    monkeypatch.setattr(fit._Work, "is_asked_otherwise", is_known)  # as if they were surely better
    of_candidate = fit._Work._costs
    monkeypatch.setattr(fit._Work, "_costs", lambda *asked: costs.append(of_candidate(*asked)) or costs[-1])
    found = model.fit(seasons(), 8, out, season_length=8)
    assert [one.name for one in found.contenders][4:6] == ["lookbacks", "lora-0.003"]
    state = json.loads((out / "fit.json").read_text())
    assert ["model.lookbacks=6" in one["overrides"] for one in state["candidates"]] == [False, True]
    assert costs[0][0] == 2 * state["contenders"]["lookbacks"]["seconds"]


def test_a_model_that_looks_back_may_be_better_asked_once(base, tmp_path, short, monkeypatch):
    from_pretrained(base, device="cpu", lookbacks=2).save_pretrained(tmp_path / "twice")
    model, out = from_pretrained(tmp_path / "twice", device="cpu"), tmp_path / "fitted"
    real = fit.train

    def train(recipe, overrides, **options):
        return real(recipe, [*overrides, "training.steps=2", "validation.steps=1"], **options)

    monkeypatch.setattr(fit, "train", train)
    monkeypatch.setattr(candidates, "FIRST", ("full",))
    monkeypatch.setattr(candidates, "MOST_CANDIDATES", 1)
    monkeypatch.setattr(fit._Work, "is_asked_otherwise", property(lambda work: True))
    monkeypatch.setattr(fit.verdict, "best_of", lambda ratios: "once")
    monkeypatch.setattr(fit.verdict, "first_that_holds", lambda lasts: next(iter(lasts)))
    found = model.fit(seasons(), 8, out, season_length=8)
    assert [one.name for one in found.contenders][:2] == ["zero-shot", "once"] and found.chosen == "once"
    once = from_pretrained(base, device="cpu").cross_validation(
        seasons(), 8, found.windows.num_verdict, season_length=8
    )
    score = once.scores.query("by == 'all' and model != 'seasonal-naive'")["MASE"].item()
    assert found.contenders[1].scores["MASE"] == pytest.approx(score, rel=1e-5)
    assert [from_pretrained(one).module.architecture.lookbacks for one in (out, fit_candidate(out))] == [1, 1]


def fit_candidate(out):
    (folder,) = (out / "candidates").iterdir()
    return folder


def test_a_probe_is_timed_whole_whenever_it_is_timed(base, tmp_path, monkeypatch):
    model, out, probes, walls = from_pretrained(base, device="cpu"), tmp_path / "fitted", [], []
    real, pace = fit.train, Pace(start=1e4, step=9, validation=9)

    def train(recipe, overrides, **options):
        probes.append(options["resume"])
        return real(recipe, overrides, **options)

    monkeypatch.setattr(fit, "train", train)
    monkeypatch.setattr(candidates, "pace_of", lambda run_dir, wall: walls.append(read_metrics(run_dir)) or pace)
    for minutes in (0.5, 0.6):
        assert model.fit(seasons(2), 8, out, minutes=minutes).chosen is None
    assert probes == [False, False], "a finished one that is resumed takes no time"
    assert [len([e for e in one.events if e["kind"] == "validation"]) for one in walls] == [2, 2]


def test_what_cannot_be_judged_is_said(base, tmp_path, monkeypatch, tiny_time_moe):
    model = from_pretrained(base, device="cpu")
    with pytest.raises(ValueError, match="horizon of 160 steps is not shorter than the history"):
        model.fit(seasons(2), 160, tmp_path / "a")
    short = model.fit(seasons(2).groupby("item_id").head(30), 8, tmp_path / "b")
    assert short.windows is None and "nothing was tuned" in short.sentence and "4 horizons" in short.notes[0]
    assert from_pretrained(tmp_path / "b", device="cpu")
    flat = model.fit(seasons(2).assign(target=3.0), 8, tmp_path / "c")
    assert flat.chosen is None and any("a past that moves" in note for note in flat.notes)
    monkeypatch.setattr(candidates, "pace_of", lambda *_: Pace(start=1e4, step=9, validation=9))
    hasty = model.fit(seasons(2), 8, tmp_path / "d", minutes=0.5)
    assert hasty.chosen is None
    assert any("0.5 minutes are too short for one candidate here: give " in note for note in hasty.notes)
    with pytest.raises(ValueError, match="minutes must be a number above 0"):
        model.fit(seasons(2), 8, tmp_path / "e", minutes=0)
    with pytest.raises(ValueError, match="lies in no folder yet"):
        Model(TIME_MOE, tiny_time_moe).fit(seasons(2), 8, tmp_path / "e")


def test_a_gpu_that_training_would_not_take_is_refused(base, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert [setting_of(torch.device(name)) for name in ("cpu", "cuda:0", "mps:0")] == ["cpu", "cuda", "mps"]
    model = from_pretrained(base, device="cpu")
    weight = SimpleNamespace(device=torch.device("cuda:1"))
    monkeypatch.setattr(model, "module", SimpleNamespace(parameters=lambda: iter([weight])))
    with pytest.raises(ValueError, match=r"is on cuda:1, and training takes cuda:0.*CUDA_VISIBLE_DEVICES=1"):
        model.fit(seasons(2), 8, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_in_between(base, tmp_path, tiny_chronos2):
    values = {name: 3 * tensor for name, tensor in tiny_chronos2.state_dict().items()}
    CHRONOS2.save(tiny_chronos2, values, tmp_path / "tuned")
    for share, times in ((1.0, 3.0), (0.5, 2.0)):
        for name, tensor in between(CHRONOS2, base, tmp_path / "tuned", share).state_dict().items():
            np.testing.assert_allclose(tensor, times * tiny_chronos2.state_dict()[name], rtol=1e-6)
