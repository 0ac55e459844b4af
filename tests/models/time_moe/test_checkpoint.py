"""Folders in and out: official names and shapes, bf16 and sharded files, nothing lost on the way."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from time_moe_parity import MODELS, oracles

from foreloom.models import registry
from foreloom.models.family import WindowLengths
from foreloom.models.time_moe.architecture import SIZES, Architecture, TimeMoeConfig
from foreloom.models.time_moe.checkpoint import FOLDER, official_views
from foreloom.models.time_moe.family import FAMILY

NUM_PARAMETERS = {"50m": 113_352_192, "200m": 453_196_800, "ultra": 2_416_545_792}


@pytest.mark.parametrize("size", NUM_PARAMETERS)
def test_published_sizes(size):
    with torch.device("meta"):
        model = FOLDER.empty(Architecture(**SIZES[size]))
    assert sum(p.numel() for p in model.parameters()) == NUM_PARAMETERS[size]


@pytest.mark.parametrize(
    ("size", "name"), [("50m", "TimeMoE-50M"), ("200m", "TimeMoE-200M"), ("ultra", "TimeMoE-ultra")]
)
def test_official_keys_and_shapes(shared, size, name):
    published = json.loads((oracles(shared) / "models" / "official_keys.json").read_text())[name]
    expected = {}
    for pattern, shape in published["keys"].items():
        for key in _spelled_out(pattern):
            expected[key] = shape
    with torch.device("meta"):
        views = official_views(FOLDER.empty(Architecture(**SIZES[size])).state_dict())
    assert {key: list(view.shape) for key, view in views.items()} == expected
    assert len(views) == published["num_tensors"]


def _spelled_out(pattern: str) -> list[str]:
    """`layers.{0..11}` as its twelve keys."""
    if "{" not in pattern:
        return [pattern]
    before, _, rest = pattern.partition("{")
    numbers, _, after = rest.partition("}")
    first, last = map(int, numbers.split(".."))
    return [before + str(number) + tail for number in range(first, last + 1) for tail in _spelled_out(after)]


@pytest.mark.parametrize("name", MODELS)
def test_an_official_folder_comes_back_bit_for_bit(shared, tmp_path, name):
    folder = oracles(shared) / "models" / name
    model = registry.recognise(folder).load(folder)
    FAMILY.save(model, model.state_dict(), tmp_path)
    theirs, ours = (load_file(f / "model.safetensors") for f in (folder, tmp_path))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    published, written = (json.loads((f / "config.json").read_text()) for f in (folder, tmp_path))
    added = {key: value for key, value in written.items() if key not in published}
    assert written | published == written and set(added) <= {"auto_map"}
    again = FAMILY.load(tmp_path)
    FAMILY.save(again, again.state_dict(), tmp_path / "twice")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()


def test_a_new_model_is_written_as_the_official_code_wants_it(tiny_time_moe, tmp_path):
    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "time_moe" and config["architectures"] == ["TimeMoeForPrediction"]
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_time_moe.TimeMoeForPrediction"
    assert config["apply_aux_loss"] is not config["use_dense"]
    assert config["torch_dtype"] == "float32" and "use_expert_bias" not in config
    again = FAMILY.load(tmp_path)
    assert again.architecture == tiny_time_moe.architecture
    x = torch.randn(2, 20)
    assert torch.equal(again(x).logits, tiny_time_moe(x).logits)


def test_half_precision_files_in_pieces_load_as_float32(tiny_time_moe, tmp_path):
    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path)
    tensors = {key: tensor.bfloat16() for key, tensor in load_file(tmp_path / "model.safetensors").items()}
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, tmp_path / file)
    weight_map = {key: file for file, keys in parts.items() for key in keys}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    model = FAMILY.load(tmp_path)
    for key, view in official_views(model.state_dict()).items():
        assert view.dtype == torch.float32 and torch.equal(view, tensors[key].float())


def test_routers_biases_survive(tmp_path):
    model = FAMILY.build(TimeMoeConfig(size="test", balance="bias"), WindowLengths(8, 8))
    FAMILY.initialize(model, 0)
    bias = model.model.layers[1].ffn_layer.expert_bias
    bias.copy_(torch.tensor([0.1, -0.1, 0.0, 0.2]))
    FAMILY.save(model, model.state_dict(), tmp_path)
    assert torch.equal(FAMILY.load(tmp_path).model.layers[1].ffn_layer.expert_bias, bias)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"input_size": 3}, "input_size is 3"),
        ({"num_experts": 1}, "num_experts_per_tok is 2 of num_experts 1"),
        ({"num_attention_heads": 3}, "width of a head"),
        ({"num_key_value_heads": 3}, "must divide"),
        ({"horizon_lengths": [8, 1]}, "ascend"),
        ({"intermediate_size": 65}, "multiple of num_experts_per_tok"),
        ({"hidden_size": 16}, "does not fit"),
        ({"rope_theta": "many"}, "rope_theta"),
        ({"model_type": "llama", "architectures": None}, "is not a Time-MoE model"),
    ],
)
def test_a_folder_that_does_not_fit_is_told(tiny_time_moe, tmp_path, change, sentence):
    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=sentence):
        FAMILY.load(tmp_path)


def test_missing_and_foreign_tensors_are_named(tiny_time_moe, tmp_path):
    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["surplus"] = tensors.pop("model.layers.1.ffn_layer.experts.2.up_proj.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"experts\.2\.up_proj\.weight is missing; surplus is not part"):
        FAMILY.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        FAMILY.load(tmp_path)
