"""Experts of a language model are kept in even use as published, over the global batch, without the padding."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from foreloom import run
from foreloom.data.text.config import TextSource
from foreloom.data.text.section import TextData
from foreloom.models.causal_lm.config import CausalLmConfig
from foreloom.models.causal_lm.family import FAMILY
from foreloom.models.causal_lm.model import CausalLm
from foreloom.models.common.count import ParameterKind

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_experts_per_tok": 2}
SHAPES = {
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4},
    "qwen2": {"model_type": "qwen2_moe", "num_experts": 4, "moe_intermediate_size": 24},
    "qwen3": {"model_type": "qwen3_moe", "num_experts": 4, "moe_intermediate_size": 24},
}
TEXT = TextData(sources=(TextSource(path="a"),), tokenizer="bytes", max_seq_length=16, packing="documents")


def made(shape: str, **more) -> CausalLm:
    model = FAMILY.build(CausalLmConfig(size="tiny", config=SMALL | SHAPES[shape], **more), TEXT)
    FAMILY.initialize(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model.train()


def rows() -> dict[str, torch.Tensor]:
    """Four of 12 tokens, the last ones of two of them padding."""
    token_RT = torch.randint(250, (4, 12), generator=torch.Generator().manual_seed(2))
    is_text = torch.arange(12) < torch.tensor([[12], [5], [12], [9]])
    labels = torch.where(is_text, token_RT.roll(-1, 1), -100)
    return {"input_ids": token_RT, "labels": labels, "is_text": is_text}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_is_transformers_with_the_published_weight(shape):
    model, its = made(shape), rows()
    weight = model.lm.config.router_aux_loss_coef
    assert model.balance_weight == weight > 0 and FAMILY.experts.needs_survey(model)
    asked = {"attention_mask": its["is_text"].long(), "output_router_logits": True, "use_cache": False}
    theirs = model.lm(input_ids=its["input_ids"], **asked).aux_loss
    output = model(**its)
    plain = model.eval()(**its)
    count = output.objective.count
    loss, _ = output.tally["aux_loss"]
    torch.testing.assert_close(loss / count, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        output.objective.sum - plain.objective.sum, weight * theirs * count, rtol=1e-3, atol=1e-4
    )
    assert output.tally["expert_load"].sum() == 2 * 2 * its["is_text"].sum()
    assert set(plain.tally) == {"token_loss"}, "what is scored is the text"
    figures = FAMILY.experts.figures(model, {name: x.detach().numpy() for name, x in output.tally.items()})
    assert figures["aux_excess"] == pytest.approx(theirs.item() - 2, abs=1e-4)
    assert figures["aux_loss"] == pytest.approx(theirs.item(), rel=1e-5) and 0 < figures["expert_entropy"] < 1
    assert set(FAMILY.experts.loads) <= set(output.tally)


def test_parts_of_a_global_batch_add_up():
    whole, cut, its = made("mixtral", router_aux_loss_coef=0.5), made("mixtral", router_aux_loss_coef=0.5), rows()
    output = whole(**its)
    output.objective.sum.backward()
    parts = [{name: x[half] for name, x in its.items()} for half in (slice(0, 1), slice(1, 4))]
    surveys = [cut(**part, survey_only=True).tally for part in parts]
    tally = {name: sum(one[name] for one in surveys) for name in surveys[0]}
    total = 0.0
    for part in parts:
        one = cut(**part, global_tally=tally)
        one.objective.sum.backward()
        total += one.objective.sum.detach()
    torch.testing.assert_close(total, output.objective.sum.detach(), rtol=1e-5, atol=1e-5)
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_run_says_how_experts_are_used_however_its_batches_are_cut(tmp_path, monkeypatch):
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    settings = [
        f"model.config={json.dumps(SMALL | SHAPES['mixtral'])}", "training.steps=2", "training.batch_size=6",
        "validation.steps=2", "validation.prompts=[]", "validation.max_windows=4", "monitoring.log_steps=1",
        "monitoring.trackers=[none]", "data.max_seq_length=24", "data.packing=documents",
    ]  # fmt: skip
    found = []
    for name, more in {
        "whole": [],
        "cut": ["training.micro_batch_size=4", "training.activation_checkpointing=true"],
    }.items():
        run.train("tiny-lm", [*settings, *more], out=tmp_path / name)
        events = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        found.append([event for event in events if event["kind"] == "step"])
    for one, other in zip(*found, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["figures"]["aux_loss"] == pytest.approx(other["figures"]["aux_loss"], rel=1e-5)
        assert np.array(one["loads"]["expert_load"]).shape == (2, 4)
        np.testing.assert_array_equal(one["loads"]["expert_load"], other["loads"]["expert_load"])


def test_a_token_costs_the_experts_it_runs_through():
    model = made("mixtral")
    parts = {part.name: part for part in FAMILY.parts(model)}
    assert parts["experts"].num_active * 2 == parts["experts"].num_parameters == 2 * 4 * 3 * 32 * 48
    assert parts["router"].num_parameters == 2 * 4 * 32 and parts["router"].in_mixture
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1) - parts["experts"].num_active
    assert 6 * 16 * weights < FAMILY.flops_per_row(model, TEXT) < 7 * 16 * weights
    kinds = {kind for name, kind in FAMILY.kinds(model).items() if ".gate." in name}
    assert kinds == {ParameterKind.OUTPUT}


def test_models_without_experts_and_weights_of_nothing():
    dense = CausalLmConfig(size="tiny", config={"hidden_size": 32, "num_hidden_layers": 1}, router_aux_loss_coef=0.1)
    with pytest.raises(ValueError, match="router_aux_loss_coef: LlamaForCausalLM has no experts, or keeps their use"):
        FAMILY.build(dense, TEXT)
    assert not FAMILY.experts.needs_survey(made("mixtral", router_aux_loss_coef=0.0))
