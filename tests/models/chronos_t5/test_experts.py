"""The mixture of experts: who is chosen, who is run, what comes out, how many parameters there are."""

from __future__ import annotations

import math

import pytest
import torch

from foreloom.models.chronos_t5.architecture import Architecture, ChronosT5Config
from foreloom.models.chronos_t5.experts import (
    ExpertHeads,
    RunningMoments,
    SampleExperts,
    masked_mean,
    moment_sums,
    published_views,
)
from foreloom.models.chronos_t5.family import FAMILY
from foreloom.models.family import WindowLengths


def experts(num_experts: int = 5, top_k: int = 2, **fields) -> SampleExperts:
    arch = Architecture(
        d_model=16, n_tokens=24, use_moe=True, num_experts=num_experts, num_active_experts=top_k, router_hidden_dim=8,
        **fields,
    )  # fmt: skip
    moe = SampleExperts(arch)
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return moe.eval()


def alone(moe: SampleExperts, expert: int, h: torch.Tensor) -> torch.Tensor:
    """One expert's logits, by the definition."""
    its = {name: stack[expert] for name, stack in moe.experts.named_parameters()}
    hidden = torch.relu(h @ its["hidden_layer_weight"].T + its["hidden_layer_bias"])
    changed = h + hidden @ its["output_layer_weight"].T + its["output_layer_bias"]
    norm = torch.nn.functional.layer_norm(changed, h.shape[-1:])
    return (norm * its["layer_norm_weight"] + its["layer_norm_bias"]) @ its["head_weight"].T


def states(num_rows: int, num_tokens: int = 7) -> torch.Tensor:
    return torch.randn(num_rows, num_tokens, 16, generator=torch.Generator().manual_seed(1))


def test_the_sample_recipe_has_the_parameters_of_the_formula():
    small = {"size": "tiny", "n_tokens": 1024}
    mixture = {"use_moe": True, "num_experts": 4, "num_active_experts": 2, "router_hidden_dim": 128}
    plain, mixed = (
        FAMILY.build(ChronosT5Config(**fields), WindowLengths(64, 24)) for fields in (small, small | mixture)
    )
    count = lambda model: sum(p.numel() for p in model.parameters())
    assert count(plain) == 7_608_064 and count(mixed) == 10_794_372
    assert count(mixed) - count(plain) == 3_186_308
    own, published = dict(mixed.named_parameters()), published_views(mixed.state_dict())
    new = [name for name in own if name.startswith("moe.")]
    assert {name for name, _ in plain.named_parameters()} == own.keys() - set(new)
    of_experts = [name for name in published if name.startswith("moe.experts.")]
    assert len(of_experts) == 28 and "moe.experts.3.layer_norm.bias" in of_experts
    assert published["moe.experts.1.head.weight"].equal(own["moe.experts.head_weight"][1])
    kinds = FAMILY.kinds(mixed)
    assert {name.rpartition(".")[2]: kinds[name].value for name in new if ".experts." in name} == {
        "hidden_layer_weight": "hidden", "hidden_layer_bias": "vector", "output_layer_weight": "hidden",
        "output_layer_bias": "vector", "layer_norm_weight": "vector", "layer_norm_bias": "vector",
        "head_weight": "output",
    }  # fmt: skip


@pytest.mark.parametrize("copies", [1, 3])
def test_the_mixture_is_the_weighted_sum_of_all_heads(copies):
    moe, hidden = experts(), states(6)
    routing = moe.route(hidden, None)
    h = states(6 * copies, 4)
    dense = torch.stack([alone(moe, expert, h) for expert in range(5)], 1)
    probability = routing.logits_BE.softmax(-1)
    expected = torch.zeros_like(dense[:, 0])
    for row in range(len(h)):
        chosen = routing.expert_BK[row // copies]
        weights = probability[row // copies, chosen] / probability[row // copies, chosen].sum()
        expected[row] = sum(weight * dense[row, expert] for weight, expert in zip(weights, chosen, strict=True))
    torch.testing.assert_close(moe(h, routing), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(routing.weight_BK.sum(-1), torch.ones(6))


def test_one_expert_alone_is_its_head():
    moe, h = experts(1, 1), states(3)
    torch.testing.assert_close(moe(h, moe.route(h, None)), alone(moe, 0, h))


def test_only_the_chosen_experts_run_and_only_on_their_samples(monkeypatch):
    moe, h, rows = experts(8, 2), states(5), []
    run_one = ExpertHeads.run_one
    monkeypatch.setattr(ExpertHeads, "run_one", lambda self, x, its: rows.append(len(x)) or run_one(self, x, its))
    routing = moe.route(h, None)
    moe(h, routing).sum().backward()
    loads = torch.bincount(routing.expert_BK.flatten(), minlength=8)
    assert rows == loads.tolist() and sum(rows) == 5 * 2 and min(rows) == 0
    for parameter in moe.experts.parameters():
        assert parameter.grad.flatten(1).any(1).equal(loads > 0)  # zero, not none, of an idle one


def test_padding_does_not_change_the_routing():
    moe, hidden = experts(), states(4, 9)
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[:, :3] = False
    junk = torch.where(mask[..., None], hidden, 1e3)
    plain, padded = moe.route(hidden[:, 3:], None), moe.route(junk, mask)
    torch.testing.assert_close(plain.logits_BE, padded.logits_BE, atol=1e-6, rtol=1e-6)
    assert plain.expert_BK.equal(padded.expert_BK)
    torch.testing.assert_close(masked_mean(junk, mask), hidden[:, 3:].mean(1), atol=1e-6, rtol=1e-6)


def test_the_router_reads_float32_whatever_the_autocast():
    """With a mask as without: else a series would be routed otherwise beside a neighbour that has a gap."""
    moe, hidden = experts(), states(4, 9)
    plain = moe.route(hidden, None)
    with torch.autocast("cpu", torch.bfloat16):
        masked = moe.route(hidden, torch.ones(4, 9, dtype=torch.bool))
    assert masked.pooled_BD.dtype == torch.float32
    torch.testing.assert_close(plain.logits_BE, masked.logits_BE, atol=1e-6, rtol=1e-6)


def test_a_biased_choice_goes_by_the_bias_and_weighs_by_probability():
    moe, hidden = experts(4, 2, router_choice="biased"), states(6)
    moe.expert_bias.copy_(torch.tensor([0.0, 2.0, 0.0, 3.0]))
    routing = moe.route(hidden, None)
    assert (routing.expert_BK == torch.tensor([3, 1])).all()
    probability = routing.logits_BE.softmax(-1)[:, [3, 1]]
    torch.testing.assert_close(routing.weight_BK, probability / probability.sum(-1, keepdim=True))


def test_standardised_logits_give_every_expert_its_share():
    """Experts whose logits lie far apart on average: by probability two take all, standardised none is left out."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 4, generator=generator) * torch.tensor([1.0, 3.0, 0.2, 1.0])
    logits = logits + torch.tensor([0.0, 40.0, -9.0, 20.0])
    moments = RunningMoments(4)
    for part in logits.split(400):
        moments.follow(moment_sums(part, torch.ones(400, dtype=torch.bool)), torch.ones(()))
    share = lambda score: torch.bincount(score.topk(2).indices.flatten(), minlength=4) / 8000
    assert share(logits).tolist() == [0.0, 0.5, 0.0, 0.5]
    assert (share(moments(logits)) - 0.25).abs().max() < 0.03


def test_moments_are_those_of_the_global_batch_however_it_is_cut():
    x, keep = torch.randn(30, 5), torch.rand(30) < 0.7
    whole, parts, untouched = RunningMoments(5), RunningMoments(5), RunningMoments(5)
    for _ in range(3):
        whole.follow(moment_sums(x, keep), torch.ones(()))
        sums = [moment_sums(a, b) for a, b in zip(x.split(7), keep.split(7), strict=True)]
        parts.follow(torch.stack(sums).sum(0), torch.ones(()))
        untouched.follow(moment_sums(x, keep), torch.zeros(()))
    torch.testing.assert_close(whole.mean, parts.mean)
    torch.testing.assert_close(whole.mean, x[keep].mean(0))
    torch.testing.assert_close(whole.variance, x[keep].var(0, correction=0), rtol=1e-5, atol=1e-6)
    assert untouched.state_dict()["num_updates"] == 0 and untouched.variance.equal(torch.ones(5))


def test_a_variance_far_from_0_keeps_its_digits():
    x = 100 + 0.01 * torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    moments = RunningMoments(5)
    for _ in range(2):
        moments.follow(moment_sums(x, torch.ones(64, dtype=torch.bool)), torch.ones(()))
    torch.testing.assert_close(moments.variance, x.var(0, correction=0), rtol=0.02, atol=0)


def test_a_skipped_step_leaves_no_trace_in_the_moments_even_where_it_was_not_finite():
    moments, keep = RunningMoments(3), torch.ones(2, dtype=torch.bool)
    moments.follow(moment_sums(torch.full((2, 3), torch.nan), keep), torch.zeros(()))
    assert moments.mean.eq(0).all() and moments.variance.eq(1).all() and moments.num_updates == 0


def test_one_sample_alone_says_nothing_of_the_variance():
    """Taken for 0, it would multiply what the next one brings by a million."""
    moments, x = RunningMoments(3), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    for row in x.split(1):
        assert moments(row).abs().max() < 10
        moments.follow(moment_sums(row, torch.ones(1, dtype=torch.bool)), torch.ones(()))
    assert (moments.variance > 0.4).all() and moments.num_updates == 2


def test_every_tensor_of_the_experts_is_trained(tiny_chronos_t5):
    """The first description of this model built its optimizer before its experts, and trained none of them."""
    model = tiny_chronos_t5.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    id_BS = torch.randint(3, 64, (32, 40), generator=torch.Generator().manual_seed(0))
    FAMILY.experts.after_update(model, model(id_BS, labels=id_BS[:, :16]).tally, torch.ones(()))
    output = model(id_BS, labels=id_BS[:, :16])
    assert output.tally["expert_load"].min() > 0
    output.objective.mean.backward()
    optimizer.step()
    unchanged = [name for name, p in model.named_parameters() if p.equal(before[name])]
    assert not unchanged
    assert math.isfinite(output.loss.item()) and math.isfinite(output.load_loss.item())
