"""transformers' Auto classes give foreloom's Time-MoE after `import foreloom.hub`, without remote code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")


@pytest.fixture
def auto():
    import foreloom.hub  # noqa: F401  (registers)

    return transformers.AutoModelForCausalLM


def test_a_published_folder_forecasts_as_the_official_code_does(shared, auto):
    folder = shared / "oracles/time_moe/models/moe4"
    oracle = np.load(folder / "generate.npz")
    model = auto.from_pretrained(folder, device_map="cpu", attn_implementation="sdpa")
    assert model.config.model_type == "time_moe" and model.attn_implementation == "sdpa"
    context = torch.from_numpy(oracle["ctx50_input"])
    forecast = model.generate(context, max_new_tokens=96)[:, 50:]
    np.testing.assert_allclose(forecast, oracle["ctx50_new96_cache"], atol=1e-5, rtol=1e-4)
    assert transformers.AutoConfig.from_pretrained(folder).num_experts == 4


def test_weights_are_float32_unless_asked_and_survive_a_round_trip(auto, tiny_time_moe, tmp_path):
    from foreloom.models.time_moe.family import FAMILY

    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path / "ours")
    model = auto.from_pretrained(tmp_path / "ours", trust_remote_code=True)  # ours, whatever the folder offers
    assert model.dtype == torch.float32 and model.device.type == "cpu" and not model.training
    assert auto.from_pretrained(tmp_path / "ours", dtype=torch.bfloat16).dtype == torch.bfloat16
    assert auto.from_pretrained(tmp_path / "ours", dtype="auto").dtype == torch.float32
    model.save_pretrained(tmp_path / "again")
    again = auto.from_pretrained(tmp_path / "again")
    for name, values in tiny_time_moe.state_dict().items():
        assert torch.equal(again.state_dict()[name], values), name
    assert json.loads((tmp_path / "again/config.json").read_text())["model_type"] == "time_moe"


def test_options_without_effect_are_refused(auto, tiny_time_moe, tmp_path):
    from foreloom.models.time_moe.family import FAMILY

    FAMILY.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path)
    for options, words in (
        ({"load_in_4bit": True}, "load_in_4bit"),
        ({"device_map": {"model": 0}}, "name one device"),
        ({"attn_implementation": "flex"}, "flash_attention_2"),
    ):
        with pytest.raises(ValueError, match=words):
            auto.from_pretrained(tmp_path, **options)
    from foreloom.models.time_moe.auto import AutoTimeMoe

    with pytest.raises(ValueError, match="float31"):
        AutoTimeMoe.from_pretrained(tmp_path, dtype="float31")
