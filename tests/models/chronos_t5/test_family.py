"""The family's record: sizes, settings that contradict each other, pretrained starts, batches, folders, FLOPs."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from made_windows import windows_of
from torch.utils.flop_counter import FlopCounterMode

from foreloom.data.stream.windows import Role
from foreloom.models import registry
from foreloom.models.chronos_t5.architecture import ChronosT5Config
from foreloom.models.chronos_t5.family import FAMILY
from foreloom.models.family import WindowLengths

CPU = torch.device("cpu")
SMALL = {"size": "tiny", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "n_tokens": 64}
MIXTURE = {"use_moe": True, "num_experts": 4, "router_hidden_dim": 16}


def built(context: int = 40, horizon: int = 8, **fields):
    model = FAMILY.build(ChronosT5Config(**fields), WindowLengths(context, horizon))
    if "pretrained" not in fields:
        FAMILY.initialize(model, 0)
    return model


def saved(model, folder):
    FAMILY.save(model, model.state_dict(), folder)
    return str(folder)


@pytest.mark.parametrize(
    ("size", "count"),
    [("tiny", 8_394_496), ("mini", 20_456_192), ("small", 46_154_240), ("base", 201_374_976), ("large", 708_963_328)],
)
def test_sizes_are_the_published_ones(size, count):
    """8M, 20M, 46M, 200M and 710M parameters (Ansari et al. 2024, table 1)."""
    with torch.device("meta"):
        model = FAMILY.build(ChronosT5Config(size=size), WindowLengths(512, 64))
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "set either size"),
        ({"size": "tiny", "pretrained": "x"}, "set either size"),
        ({"pretrained": "x", "n_tokens": 512, "low_limit": -5.0}, "n_tokens, low_limit cannot be set beside pretra"),
        ({"size": "tiny", "num_experts": 4}, "num_experts has no effect with use_moe: false; set model.use_moe=true"),
        ({"size": "tiny", "use_moe": True, "num_experts": 2, "num_active_experts": 3},
         "num_active_experts is 3 and num_experts 2: a series cannot go to more experts than there are"),
        ({"size": "tiny", "use_moe": True, "num_active_experts": 9}, "num_active_experts is 9 and num_experts 8"),
        ({"size": "tiny", "use_moe": True, "balance_rate": 0.1}, "balance_rate has no effect without router_choice"),
        ({"size": "tiny", "use_moe": True, "balance_rate": 0.1, "router_choice": "probability"},
         "balance_rate has no effect with router_choice: probability"),
        ({"size": "tiny", "low_limit": 3.0, "high_limit": -3.0}, "low_limit 3 is not below high_limit -3"),
        ({"size": "tiny", "n_tokens": 3}, "n_tokens 3 leaves 0 bins"),
        ({"size": "tiny", "context_length": 30}, "model.context_length is 30 and the data's windows need 40"),
        ({"size": "tiny", "relative_attention_num_buckets": 7}, "relative_attention_num_buckets is 7"),
    ],
)  # fmt: skip
def test_contradictions_get_a_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        built(**fields)


def test_limits_in_raw_units_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        built(**SMALL, low_limit=-10_000.0, high_limit=10_000.0)
    assert "units of each context's mean absolute value, not of the data" in caplog.text
    assert "leave 1 outside" not in caplog.text
    with caplog.at_level(logging.WARNING):
        built(**SMALL, low_limit=-15.0, high_limit=0.5)
    assert "limits -15 to 0.5 leave 1 outside" in caplog.text


def test_a_pretrained_model_has_its_limits_raised_and_the_rest_as_asked(tmp_path, caplog):
    folder = saved(built(**SMALL), tmp_path)
    with caplog.at_level(logging.INFO):
        model = built(100, 12, pretrained=folder, dropout_rate=0.3, num_samples=7)
    assert "context_length: 40 -> 100" in caplog.text and "prediction_length: 8 -> 12" in caplog.text
    arch = model.architecture
    assert (arch.context_length, arch.prediction_length, arch.num_samples) == (100, 12, 7)
    rates = {module.dropout_rate for module in model.modules() if hasattr(module, "dropout_rate")}
    assert rates == {0.3}
    with pytest.raises(ValueError, match="model.context_length is 20 and the checkpoint has 40"):
        built(pretrained=folder, context_length=20)
    with pytest.raises(ValueError, match="has no experts; add them with model.use_moe=true"):
        built(pretrained=folder, num_experts=3)


def test_a_regular_checkpoint_gets_experts_and_keeps_the_rest(tmp_path):
    regular = built(**SMALL)
    mixed = built(pretrained=saved(regular, tmp_path / "regular"), **MIXTURE)
    for name, tensor in regular.state_dict().items():
        assert mixed.state_dict()[name].equal(tensor), name
    assert all(p.isfinite().all() for p in mixed.parameters())
    assert mixed.moe.experts.head_weight[0].std() > 0.05 and mixed.moe.router.input_moments.variance.eq(1).all()
    folder = saved(mixed, tmp_path / "mixed")
    again = built(pretrained=folder, num_active_experts=1)
    assert again.architecture.num_active_experts == 1 and again.architecture.use_moe
    assert again.moe.experts.head_weight.equal(mixed.moe.experts.head_weight)
    with pytest.raises(ValueError, match="model.num_experts is 5 and .* has 4; leave it out"):
        built(pretrained=folder, num_experts=5)
    with pytest.raises(ValueError, match="model.balance_rate has no effect on .*mixed, .* router_choice: standardized"):
        built(pretrained=folder, balance_rate=0.1)
    assert built(pretrained=folder, balance_rate=0.1, router_choice="biased").moe.expert_bias.eq(0).all()
    with pytest.raises(ValueError, match="model.use_moe is false and .* has experts in place of a head"):
        built(pretrained=folder, use_moe=False)


def test_without_experts_the_setting_changes_nothing():
    regular, told = built(**SMALL), built(**SMALL, use_moe=False)
    assert list(regular.state_dict()) == list(told.state_dict())
    ids = torch.randint(3, 64, (4, 30))
    for model in (regular, told):
        torch.manual_seed(0)
        model.train()
    torch.manual_seed(0)
    first = regular(ids, labels=ids[:, :9])
    torch.manual_seed(0)
    second = told(ids, labels=ids[:, :9])
    assert first.loss.equal(second.loss) and first.logits.equal(second.logits) and first.tally == {}


@pytest.mark.parametrize("fields", [SMALL, SMALL | MIXTURE, SMALL | MIXTURE | {"router_choice": "biased"}])
def test_a_folder_is_read_back_bit_for_bit(tmp_path, fields):
    model = built(**fields)
    folder = saved(model, tmp_path)
    again = registry.recognise(folder).load(folder)
    assert again.architecture == model.architecture
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    config = json.loads((tmp_path / "config.json").read_text())
    if "use_moe" in fields:
        assert config["chronos_pipeline_class"] == "ChronosMoEPipeline" and config["chronos_config"]["num_experts"] == 4
    else:
        assert config["architectures"] == ["T5ForConditionalGeneration"] and "use_moe" not in config["chronos_config"]


def test_transformers_reads_the_same_model(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = built(**SMALL, initializer_factor=1.0).eval()
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(saved(model, tmp_path)).eval()
    ids, mask = torch.randint(3, 64, (4, 30)), torch.rand(4, 30) < 0.8
    ours = model(ids, mask, labels=ids[:, :9].contiguous())
    reference = theirs(input_ids=ids, attention_mask=mask, labels=ids[:, :9].contiguous())
    torch.testing.assert_close(ours.logits, reference.logits, atol=2e-5, rtol=1e-4)
    assert ours.loss.item() == pytest.approx(reference.loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"vocab_size": 65}, "the tokenizer does not match the checkpoint: .*n_tokens is 64, vocab_size 65"),
        ({"chronos_config": {"n_tokens": 60}}, "the tokenizer does not match the checkpoint"),
        ({"chronos_config": {"tokenizer_class": "Other"}}, "tokenizer_class is 'Other'; foreloom has MeanScale"),
        ({"chronos_config": {"prediction_length": None}}, "lacks chronos_config.prediction_length"),
        ({"d_ff": 65}, r"wi.weight has shape \(64, 32\), the model \(65, 32\)"),
        ({"num_layers": "many"}, "num_layers"),
        ({"chronos_config": {"tokenizer_kwargs": {"low_limit": 5, "high_limit": -5}}}, "config.json: low_limit 5 is"),
        ({"feed_forward_proj": "swish"}, "feed_forward_proj is 'swish'"),
    ],
)  # fmt: skip
def test_folders_that_contradict_themselves_are_refused(tmp_path, change, sentence):
    saved(built(**SMALL), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    nested = config["chronos_config"] | change.get("chronos_config", {})
    nested = {key: value for key, value in nested.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config | change | {"chronos_config": nested}))
    with pytest.raises(ValueError, match=sentence):
        FAMILY.load(tmp_path)


def test_an_embedding_that_is_not_one_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    saved(built(**SMALL), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"lm_head.weight": tensors["shared.weight"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lm_head.weight differs from shared.weight"):
        FAMILY.load(tmp_path)
    save_file(tensors | {"lm_head.weight": tensors["shared.weight"].clone()}, tmp_path / "model.safetensors")
    FAMILY.load(tmp_path)


def test_a_batch_holds_what_can_be_learned_from():
    model = built(**SMALL)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 28)).astype(np.float32)
    x[:, :5] = np.nan
    x[0, :20] = np.nan  # nothing before the cut
    x[1, 20:] = np.nan  # nothing after it
    x[2, 7:12] = np.nan
    x[3, 22] = np.nan
    windows = windows_of(x)
    batch = FAMILY.batch(model, windows, CPU)
    assert batch["input_ids"].shape == (4, 15 + 1) and batch["labels"].shape == (4, 8 + 1)
    assert batch["labels"][1].tolist().count(-100) == 1 and batch["attention_mask"][0].tolist().count(False) == 5
    roles = np.array([Role.TARGET, Role.TARGET, Role.TARGET, Role.TARGET, Role.PAST, Role.FUTURE], np.int8)
    assert len(FAMILY.batch(model, dataclasses.replace(windows, role_R=roles), CPU)["labels"]) == 2
    nothing = FAMILY.batch(model, windows.masked(), CPU)
    output = model.train()(**nothing)
    output.objective.sum.backward()
    assert output.objective.count == 0 and output.objective.sum == 0
    full = FAMILY.batch(model, windows_of(np.nan_to_num(x)), CPU)
    assert "attention_mask" not in full
    with pytest.raises(ValueError, match="a horizon of 9 steps and the model forecasts 8 at once"):
        FAMILY.batch(model, windows_of(x, 9), CPU)


@pytest.mark.parametrize("fields", [{}, {"feed_forward_proj": "gated-gelu"}, MIXTURE, {"model_type": "causal"}])
def test_flops_are_those_that_are_done(fields):
    small = {key: value for key, value in SMALL.items() if fields.get("model_type") != "causal" or key != "d_kv"}
    model = built(40, 8, **(small | fields)).train()
    windows = windows_of(np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32))
    arguments = FAMILY.batch(model, windows, CPU)
    with FlopCounterMode(display=False) as counter:
        model(**arguments).objective.sum.backward()
    assert FAMILY.flops_per_row(model, WindowLengths(40, 8)) == pytest.approx(counter.get_total_flops() / 5, rel=0.05)
