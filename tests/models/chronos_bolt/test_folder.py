"""Folders in and out: nothing lost, damage named."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from bolt_parity import folder_of, load
from safetensors.torch import load_file, save_file

import foreloom
from foreloom.models import registry
from foreloom.models.chronos_bolt.family import FAMILY
from foreloom.models.family import WindowLengths


@pytest.fixture
def folder(shared, tmp_path):
    """A copy of the published test checkpoint."""
    copy = tmp_path / "bolt"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(folder_of(shared) / name, copy / name)
    return copy


def test_a_published_folder_survives_the_round_trip(shared, tmp_path):
    source, model = folder_of(shared), load(shared)
    FAMILY.save(model, model.state_dict(), tmp_path)
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (tmp_path, source))
    assert ours == theirs
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_the_door_for_users_opens_it(folder):
    model = foreloom.from_pretrained(folder, device="cpu")
    assert model.family is FAMILY
    (answer,) = model.predict(torch.randn(600).cumsum(0).numpy())
    assert answer.shape == (1, 64, 3)
    with pytest.warns(UserWarning, match="beyond the 64 steps the model gives at once"):
        assert model.predict([list(range(40))], prediction_length=100)[0].shape == (1, 100, 3)
    assert model.embed([list(range(40))])[0].shape == (1, 3 + 1, 8)


def test_a_new_models_config_says_what_it_is(tmp_path):
    model = FAMILY.build(FAMILY.config(size="test"), WindowLengths(64, 16))
    FAMILY.initialize(model, 0)
    FAMILY.save(model, model.state_dict(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["chronos_pipeline_class"]) == ("t5", "ChronosBoltPipeline")
    assert (config["dtype"], config["vocab_size"], config["reg_token_id"]) == ("float32", 2, 1)
    assert registry.recognise(tmp_path) is FAMILY


def test_copies_of_the_embedding_are_passed_over(folder):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    copies = {f"{stack}.embed_tokens.weight": tensors["shared.weight"].clone() for stack in ("encoder", "decoder")}
    save_file(tensors | copies | {"lm_head.weight": torch.randn(5, 8)}, weights)
    assert torch.equal(FAMILY.load(folder).shared.weight, tensors["shared.weight"])
    save_file(tensors | {"encoder.embed_tokens.weight": tensors["shared.weight"] + 1}, weights)
    with pytest.raises(ValueError, match=r"model\.safetensors: encoder\.embed_tokens\.weight differs from shared"):
        FAMILY.load(folder)


def test_damaged_weights_are_named(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read .*truncated or damaged"):
        FAMILY.load(folder)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    del tensors["decoder.final_layer_norm.weight"]
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=r"decoder\.final_layer_norm\.weight is missing"):
        FAMILY.load(folder)


@pytest.mark.parametrize(
    ("where", "key", "value", "sentence"),
    [
        ("chronos_config", "input_patch_stride", 8, "input_patch_stride is 8 and input_patch_size is 16"),
        ("chronos_config", "quantiles", [0.5, 0.1], "ascend strictly"),
        ("chronos_config", "prediction_length", None, r"lacks chronos_config\.prediction_length"),
        (None, "decoder_start_token_id", 1, "decoder_start_token_id is 1"),
        (None, "feed_forward_proj", "gated-gelu", "feed_forward_proj is 'gated-gelu'; Chronos-Bolt has gelu or relu"),
        (None, "chronos_config", None, "no chronos_config"),
    ],
)
def test_configs_that_cannot_be_honoured(folder, where, key, value, sentence):
    config = json.loads((folder / "config.json").read_text())
    section = config[where] if where else config
    section[key] = value
    if value is None:
        del section[key]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"bolt.*{sentence}"):
        FAMILY.load(folder)


def test_another_family_is_refused(shared):
    for name in ("t5b", "dummy-chronos2-model"):
        with pytest.raises(ValueError, match="is not a Chronos-Bolt model"):
            FAMILY.load(shared / "oracles" / "chronos" / "ckpt" / name)
