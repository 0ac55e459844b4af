"""Folders of every family: where they come from, and adapters on top of them."""

from __future__ import annotations

import json
import time

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from foreloom.models import registry
from foreloom.models.common.hub_folder import resolve_folder
from foreloom.models.common.lora import merge_adapter


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


OURS = [name for name in registry.names() if name != "causal_lm"]
"""Whose folders are read here; those of language models transformers reads."""


@pytest.mark.parametrize("family", [name for name in OURS if name != "lstm"])
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

    def expect(base, sentence):
        (tmp_path / "adapter" / "adapter_config.json").write_text(
            json.dumps(config | {"base_model_name_or_path": base})
        )
        if sentence is None:
            assert registry.recognise(tmp_path / "adapter") is family
            return
        with pytest.raises(ValueError, match=rf"adapter_config\.json: the base model is not here\. {sentence}"):
            registry.recognise(tmp_path / "adapter")

    expect("/elsewhere/base", None)  # beside the adapter
    expect("/elsewhere/run/hf", "/elsewhere/run/hf is neither a folder nor")
    expect("/elsewhere/adapter", "/elsewhere/adapter is neither a folder nor")  # not the adapter itself


@pytest.mark.parametrize("family", OURS)
def test_weights_that_are_not_finite_are_the_models_fault(request, tmp_path, family):
    model, family = request.getfixturevalue(f"tiny_{family}"), registry.get(family)
    next(x for x in model.parameters() if x.dim() == 2).data[0, 0] = torch.nan
    family.save(model, model.state_dict(), tmp_path)
    with pytest.raises(ValueError, match=r"model.safetensors: \S+ holds values that are not finite"):
        family.load(tmp_path)


WIDE = 2**31 - 1
HUGE = {
    "chronos2": [("num_layers", 10**9), ("num_heads", WIDE), ("d_ff", 10**12), ("d_model", 0), ("rope_theta", 1e999)],
    "chronos_bolt": [("num_layers", 10**9), ("num_decoder_layers", 10**9), ("d_kv", WIDE), ("dropout_rate", 1e999)],
    "chronos_t5": [("num_layers", 10**9), ("d_ff", WIDE), ("layer_norm_epsilon", float("nan"))],
    "time_moe": [("num_hidden_layers", 10**9), ("num_experts", 10**9), ("rms_norm_eps", float("nan"))],
    "decoder": [("num_layers", 10**9), ("d_model", 2**30), ("d_ff", WIDE), ("vocab_size", WIDE), ("norm_eps", 1e999)],
    "lstm": [("num_layers", 10**9), ("d_model", 2**30), ("vocab_size", WIDE), ("forget_bias", 1e999)],
}
"""Of each family, what would take the memory or the time there is, or forecast nonsense."""
NESTED = {
    "chronos2": [("quantiles", [0.5, 1e999]), ("time_encoding_scale", 10**30)],
    "chronos_bolt": [("prediction_length", WIDE)],
    "chronos_t5": [("n_tokens", WIDE), ("n_special_tokens", -WIDE), ("num_experts", 10**9), ("low_limit", 1e999)],
    "time_moe": [],
    "decoder": [],
    "lstm": [],
}
SENTENCES = r"do not belong together|does not fit its config\.json|config\.json: \w+(\.\w+)*: expected"


@pytest.mark.parametrize("family", OURS)
def test_a_config_that_its_weights_do_not_bear_out_is_refused_before_it_is_built(request, tmp_path, family):
    model, family = request.getfixturevalue(f"tiny_{family}"), registry.get(family)
    family.save(model, model.state_dict(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    wrong = [{key: value} for key, value in HUGE[family.name]]
    for key, value in NESTED[family.name]:
        inner = config["chronos_config"]
        place = {"tokenizer_kwargs": {**inner["tokenizer_kwargs"], key: value}} if key == "low_limit" else {key: value}
        wrong.append({"chronos_config": inner | place} | ({"vocab_size": value} if key == "n_tokens" else {}))
    for one in wrong:
        (tmp_path / "config.json").write_text(json.dumps(config | one))
        started = time.monotonic()
        with pytest.raises(ValueError, match=SENTENCES):
            family.load(tmp_path)
        assert time.monotonic() - started < 3, one


def test_broken_files_of_a_folder_get_a_sentence(tiny_chronos2, tmp_path):
    family = registry.get("chronos2")
    family.save(tiny_chronos2, tiny_chronos2.state_dict(), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    whole = config.read_text()
    for text, sentence in (
        ("[" * 100_000, "config.json is nested too deep"),
        ("[]", "config.json: expected a JSON object, got a list"),
        ('{"d_model": ' + "9" * 5000 + "}", "config.json: not valid JSON"),
        ('{"d_model": 1,}', "config.json:1: not valid JSON"),
    ):
        config.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            family.load(tmp_path / "model")
    config.write_text(whole)
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "secret.safetensors")
    index = tmp_path / "model" / "model.safetensors.index.json"
    for name in ("../secret.safetensors", str(tmp_path / "secret.safetensors"), "config.json"):
        index.write_text(json.dumps({"weight_map": {"shared.weight": name}}))
        with pytest.raises(ValueError, match="which is no safetensors file of its folder"):
            family.load(tmp_path / "model")
    (tmp_path / "secret.safetensors").rename(tmp_path / "model" / "part-1.safetensors")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tiny_chronos2.state_dict(), "part-1.safetensors")}))
    assert family.load(tmp_path / "model").state_dict().keys() == tiny_chronos2.state_dict().keys()


def test_ranks_by_module_are_read_as_peft_does_and_never_hang(tmp_path):
    names = [f"encoder.block.{n}.layer.{'a' * 30}.q" for n in range(2)]
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}

    def merged(ranks=(2, 2), **settings):
        tensors = {f"{name}.weight": torch.zeros(3, 3) for name in names}
        adapter = {}
        for name, rank in zip(names, ranks, strict=True):
            adapter[f"base_model.model.{name}.lora_A.weight"] = torch.ones(rank, 3)
            adapter[f"base_model.model.{name}.lora_B.weight"] = torch.ones(3, rank)
        merge_adapter(tensors, adapter, config | settings, tmp_path)
        return [float(x[0, 0]) / rank for x, rank in zip(tensors.values(), ranks, strict=True)]  # alpha / rank

    assert merged() == [2, 2]
    assert merged((2, 8), rank_pattern={r"^encoder.block.1\..*": 8}) == [2, 0.5]
    assert merged((1, 2), alpha_pattern={"(k|q)": 8}, rank_pattern={r"block\.[0]\..*.q": 1}) == [8, 4]
    with pytest.raises(ValueError, match=r"block\.1\.\S+ is of rank 2; adapter_config\.json says 8"):
        merged(rank_pattern={r"^encoder.block.1\..*": 8})
    assert merged(rank_pattern={"other": 8}, use_rslora=True) == pytest.approx([4 / 2**0.5] * 2)
    with pytest.raises(ValueError, match=r"A and B are \(2, 3\) and \(3, 2\), and the base has \(4, 3\)\."):
        a, b = torch.ones(2, 3), torch.ones(3, 2)
        adapter = {"base_model.model.q.lora_A.weight": a, "base_model.model.q.lora_B.weight": b}
        merge_adapter({"q.weight": torch.zeros(4, 3)}, adapter, config, tmp_path)
    for wrong in ("(a+)+", "(a|aa)+b", "a*a*a*b", "[", "", "(?=a)"):
        with pytest.raises(ValueError, match="rank_pattern has .* expected names of modules"):
            merged(rank_pattern={wrong: 8})
    for settings in ({"r": 0}, {"r": None}, {"rank_pattern": {"q": "8"}}, {"lora_alpha": float("nan")}):
        with pytest.raises(ValueError, match="must be numbers above 0|expected numbers"):
            merged(**settings)
