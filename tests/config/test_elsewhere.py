"""Words of other trainers are met with the setting that says the same here."""

from __future__ import annotations

import re

import pytest

from foreloom import run
from foreloom.config import elsewhere
from foreloom.config.located import RecipeError


def of(recipe: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        run.load(recipe, overrides, need_data=False)
    return str(caught.value)


@pytest.fixture(scope="module")
def known() -> set[str]:
    recipes = [run.load(name, need_data=False) for name in ("chronos2-test", "tiny-lm", "decoder-tiny")]
    settings = {f"{name}.{field}" for one in recipes for name, its in one.sections.items() for field in vars(its)}
    sources = {field for one in recipes for source in one.sections["data"].sources for field in vars(source)}
    return settings | {f"data.sources.0.{field}" for field in sources}


def test_every_word_leads_to_a_setting_that_there_is(known):
    text = " ".join(elsewhere._HERE)
    named = set(re.findall(r"\b(?:[a-z]+\.)+[a-z_0-9.]*[a-z_]\b", text))
    assert len(named) > 40 and named <= known
    assert all(re.search(r"[a-z]=|--|:", here) for here in elsewhere._HERE)


def test_a_word_leads_to_one_setting():
    words = [elsewhere._squashed(word) for words in elsewhere._HERE.values() for word in words.split()]
    assert sorted({word for word in words if words.count(word) > 1}) == []


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("training.max_steps=5", "training.max_steps: unknown setting. Here: training.steps=N."),
        ("training.learning_rate=1", "unknown setting. Here: optimizer.learning_rate=X."),
        (
            "trainer.max_steps=5",
            "trainer: unknown section. Did you mean training? trainer.max_steps, here: training.steps=N.",
        ),
        ("trainig.steps=5", "trainig: unknown section. Did you mean training?"),
        ("lr=1", "write an override as section.setting=value; here: optimizer.learning_rate=X."),
        ("+training.steps=5", "write an override as section.setting=value; here: training.steps=VALUE."),
        ("data.sources[0].path=a", "section.setting=value; here: data.sources.0.path=VALUE."),
        ("training.device=gpu", "Did you mean cuda?"),
        ("parallel.strategy=FSDP", "Did you mean fsdp?"),
        ("training.precision=bf16-mixed", "Did you mean bf16?"),
        ("monitoring.trackers=wandb", "expected a list, got 'wandb'. Write [wandb]."),
        ("training.stepz=5", "unknown setting. Did you mean steps?"),
    ],
)
def test_an_override_of_another_trainer(typed, told):
    assert told in of("chronos2-test", typed)
