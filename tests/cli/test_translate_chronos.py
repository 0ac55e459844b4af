"""Configurations of chronos-forecasting's training script become recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from foreloom import run
from foreloom.cli import translate_chronos as chronos
from foreloom.cli.train import show, train
from foreloom.config.located import RecipeError

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "chronos_t5.md"

CONFIG = """\
training_data_paths: ["a.arrow", "b.arrow"]
probability: [0.9, 0.1]
context_length: 128
prediction_length: 24
min_past: 60
max_steps: 200_000
per_device_train_batch_size: 8
optim: adamw_torch_fused
gradient_accumulation_steps: 2
shuffle_buffer_length: 100_000
model_id: google/t5-efficient-mini
model_type: seq2seq
random_init: true
tie_embeddings: true
tf32: true
tokenizer_class: "MeanScaleUniformBins"
tokenizer_kwargs: {low_limit: -10.0, high_limit: 12.0}
n_tokens: 1024
max_missing_prop: 0.9
use_eos_token: true
"""


def translate(tmp_path: Path, text: str, devices: int = 1) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return chronos.translate(path, devices=devices)


def test_the_translation_is_a_valid_recipe_that_means_the_same(tmp_path):
    text = translate(tmp_path, CONFIG, devices=4)
    (tmp_path / "new.yaml").write_text(text)
    sections = run.load(tmp_path / "new.yaml", need_data=False).sections
    model, data, training = sections["model"], sections["data"], sections["training"]
    assert (model.size, model.n_tokens, model.low_limit, model.high_limit) == ("mini", 1024, -10, 12)
    assert [(one.path, one.weight) for one in data.sources] == [("a.arrow", 0.9), ("b.arrow", 0.1)]
    assert (data.context_length, data.prediction_length, data.min_past, data.drop_values) == (128, 24, 60, 0.2)
    assert (training.steps, training.batch_size, training.micro_batch_size) == (200_000, 8 * 2 * 4, 8)
    defaults = (training.save_steps, sections["optimizer"].learning_rate, sections["optimizer"].schedule)
    assert defaults == (50_000, 1e-3, "linear"), "of the script, where the file says nothing"
    assert "max_missing_prop: windows without" in text


def test_fine_tuning_leaves_to_the_checkpoint_what_it_decides(tmp_path):
    more = CONFIG.replace("google/t5-efficient-mini", "amazon/chronos-t5-small").replace("random_init: true", "")
    text = translate(tmp_path, more)
    assert yaml.safe_load(text)["model"] == {"family": "chronos_t5", "pretrained": "amazon/chronos-t5-small"}
    assert "n_tokens: the checkpoint decides" in text


def test_errors_at_once_each_at_its_line(tmp_path):
    wrong = CONFIG.replace("probability:", "probabilities:").replace("random_init: true", "random_init: false")
    with pytest.raises(RecipeError) as caught:
        translate(tmp_path, wrong + "lr_scheduler_type: polynomial\n")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "config.yaml:2: probabilities: not a key" in lines[0] and "Did you mean probability?" in lines[0]
    assert "config.yaml:13: random_init: false begins with google/t5-efficient-mini, a model of text" in lines[1]
    with pytest.raises(RecipeError, match=r"'gpt2' is no T5 whose size is known here"):
        translate(tmp_path, CONFIG.replace("google/t5-efficient-mini", "gpt2"))


def test_it_is_told_from_a_file_of_the_other_trainer(tmp_path):
    """Either translation of the wrong file would train another model family, without a word."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    with pytest.raises(ValueError, match="give it to --from-chronos instead of --from-tsm"):
        show(from_tsm=path)
    with pytest.raises(ValueError, match="foreloom show --from-chronos"):
        train(str(path))
    few = tmp_path / "few.yaml"
    few.write_text("training_data_paths: [a]\nmax_steps: 9\nmodel_id: amazon/chronos-t5-tiny\n")
    with pytest.raises(ValueError, match="foreloom show --from-chronos"):
        train(str(few))
    few.write_text("training_data_paths: [a]\nmax_steps: 9\nd_model: 64\n")
    with pytest.raises(ValueError, match=r"--from-tsm .* or with --from-chronos"):
        train(str(few))


def test_the_guide_names_every_key():
    guide = GUIDE.read_text().partition("## Coming from the training script")[2]
    named = set(re.findall(r"\b[a-z][a-z0-9_]+\b", guide))
    keys = {*chronos.SAME, *chronos.OF_MODEL, *chronos.FOLDED, *chronos.DROPPED}
    assert keys - named <= {"n_special_tokens", "pad_token_id", "eos_token_id"}
