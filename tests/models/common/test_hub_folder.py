"""Folders of every family: where they come from, and adapters on top of them."""

from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from foreloom.models import registry
from foreloom.models.common.hub_folder import resolve_folder


def test_a_name_that_is_nowhere(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="neither a folder nor a model"):
        resolve_folder("nobody/nothing")


def test_what_the_hub_says_fits_on_a_line(monkeypatch):
    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("Got: ConnectError\nCheck your  connection.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ValueError, match=r"cache can give: Got: ConnectError Check your connection\.$"):
        resolve_folder("nobody/nothing")


@pytest.mark.parametrize("family", [name for name in registry.names() if name != "causal_lm"])  # transformers loads it
def test_an_adapter_is_merged_into_its_base(request, tmp_path, family):
    model, family = request.getfixturevalue(f"tiny_{family}"), registry.get(family)
    family.save(model, model.state_dict(), tmp_path / "base")
    name, weight = next((name, x) for name, x in model.named_parameters() if ".q" in name and name.endswith(".weight"))
    a, b = torch.randn(2, weight.shape[1]), torch.randn(len(weight), 2)
    prefix = f"base_model.model.{name.removesuffix('.weight')}"
    (tmp_path / "adapter").mkdir()
    adapter = {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}
    save_file(adapter, tmp_path / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    assert registry.recognise(tmp_path / "adapter") is family
    merged = dict(family.load(tmp_path / "adapter").named_parameters())
    torch.testing.assert_close(merged[name], weight + 2 * b @ a)
    assert all(merged[other].equal(x) for other, x in model.named_parameters() if other != name)
