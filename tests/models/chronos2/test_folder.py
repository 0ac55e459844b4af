"""Folders in and out: nothing lost, damage named."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from chronos2_parity import load
from safetensors.torch import load_file, save_file

from foreloom.models import registry
from foreloom.models.chronos2.family import FAMILY
from foreloom.models.family import WindowLengths


@pytest.fixture
def folder(shared, tmp_path):
    """A copy of the small parity checkpoint."""
    copy = tmp_path / "c2a"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(shared / "oracles" / "chronos" / "ckpt" / "c2a" / name, copy / name)
    return copy


@pytest.mark.parametrize("name", ["c2a", "c2noreg", "dummy-chronos2-model"])
def test_a_published_folder_survives_the_round_trip(shared, tmp_path, name):
    source = shared / "oracles" / "chronos" / "ckpt" / name
    model = load(shared, name)
    FAMILY.save(model, model.state_dict(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((source / "config.json").read_text())
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_unknown_keys_and_the_dtype_spelling_survive(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config |= {"house": {"a": 1}, "torch_dtype": config.pop("dtype")}
    config["chronos_config"]["note"] = "kept"
    (folder / "config.json").write_text(json.dumps(config))
    model = FAMILY.load(folder)
    FAMILY.save(model, model.state_dict(), tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == config


def test_a_new_models_config_says_what_it_is(tmp_path):
    model = FAMILY.build(FAMILY.config(size="test"), WindowLengths(64, 16))
    FAMILY.initialize(model, 0)
    FAMILY.save(model, model.state_dict(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["chronos_pipeline_class"]) == ("t5", "Chronos2Pipeline")
    assert (config["dtype"], config["vocab_size"], config["reg_token_id"]) == ("float32", 2, 1)
    assert registry.recognise(tmp_path) is FAMILY


def test_damaged_weights_are_named(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read .*truncated or damaged"):
        FAMILY.load(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        FAMILY.load(folder)


def test_weights_that_do_not_fit_are_named(folder):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    removed = tensors.pop("encoder.final_layer_norm.weight")
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=r"encoder\.final_layer_norm\.weight is missing"):
        FAMILY.load(folder)
    save_file(tensors | {"encoder.final_layer_norm.weight": removed[:3].clone(), "extra": torch.ones(1)}, weights)
    with pytest.raises(ValueError, match=r"extra is not part of the model; .*has shape \(3,\), the model \(64,\)"):
        FAMILY.load(folder)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("input_patch_stride", 8, "only equal values"),
        ("quantiles", [0.5, 0.1], "ascend strictly"),
        ("context_length", None, "context_length"),
    ],
)
def test_configs_that_cannot_be_honoured(folder, key, value, sentence):
    config = json.loads((folder / "config.json").read_text())
    if value is None:
        del config["chronos_config"][key]
    else:
        config["chronos_config"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=sentence):
        FAMILY.load(folder)


def test_another_family_is_refused(shared):
    for name in ("t5b", "dummy-chronos-bolt-model"):
        with pytest.raises(ValueError, match="is not a Chronos-2 model"):
            FAMILY.load(shared / "oracles" / "chronos" / "ckpt" / name)


def test_a_full_disk_leaves_the_old_model(folder, monkeypatch):
    model = FAMILY.load(folder)
    before = (folder / "model.safetensors").read_bytes()

    def full(tensors, file, *_):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        FAMILY.save(model, model.state_dict(), folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_adapters_that_cannot_be_merged_say_why(shared, folder):
    adapter = folder.parent / "adapter"
    adapter.mkdir()
    source = shared / "oracles" / "chronos" / "ckpt" / "c2a-lora"
    shutil.copyfile(source / "adapter_model.safetensors", adapter / "adapter_model.safetensors")
    config = json.loads((source / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(ValueError, match="sets use_dora"):
        FAMILY.load(adapter)
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(ValueError, match="holds a IA3 adapter"):
        FAMILY.load(adapter)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert not torch.equal(FAMILY.load(adapter).encoder.block[0].layer[0].self_attention.q.weight,
                           FAMILY.load(folder).encoder.block[0].layer[0].self_attention.q.weight)  # fmt: skip
