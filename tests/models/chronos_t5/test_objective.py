"""Cross entropy and the balance loss of the global batch: values, gradients, and sums over any cut."""

from __future__ import annotations

import pytest
import torch

from foreloom.models.chronos_t5.family import FAMILY
from foreloom.models.chronos_t5.objective import GlobalBatch
from foreloom.objectives.loss import cross_entropy
from foreloom.objectives.router import share_balance


def balance(probability_BE: torch.Tensor, expert_BK: torch.Tensor) -> float:
    load = torch.bincount(expert_BK.flatten(), minlength=probability_BE.shape[1]).float()
    return share_balance(probability_BE.sum(0), load, torch.tensor(len(probability_BE))).item()


def test_the_balance_loss_is_1_at_even_use_and_the_number_of_experts_at_collapse():
    even = torch.full((4, 4), 0.25)
    assert balance(even, torch.arange(4)[:, None]) == pytest.approx(1.0)
    one = torch.zeros(4, 4)
    one[:, 2] = 1.0
    assert balance(one, torch.full((4, 1), 2)) == pytest.approx(4.0)
    # Near 1 in spite of two idle experts, where probabilities are even: why hard usage is logged beside it.
    assert balance(even, torch.tensor([[0, 1]] * 4)) == pytest.approx(1.0)


def test_its_gradient_flows_through_the_probabilities_only():
    logits = torch.randn(6, 3, requires_grad=True)
    load = torch.tensor([4.0, 1.0, 1.0], requires_grad=True)
    share_balance(logits.softmax(-1).sum(0), load.detach(), torch.tensor(6)).backward()
    share = torch.tensor([4, 1, 1]) / 6
    probability = logits.detach().softmax(-1)
    expected = 3 / 6 * probability * (share - (probability * share).sum(-1, keepdim=True))
    torch.testing.assert_close(logits.grad, expected)
    assert load.grad is None


def test_cross_entropy_is_a_sum_and_a_count():
    logits, labels = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    labels[0, 1:3] = -100
    loss = cross_entropy(logits, labels)
    kept = labels >= 0
    expected = -logits.log_softmax(-1)[kept].gather(1, labels[kept][:, None]).sum()
    torch.testing.assert_close(loss.sum, expected)
    assert loss.count == 8
    assert cross_entropy(logits, torch.full_like(labels, -100)).sum == 0


def parts_of(model, id_BS, labels, cuts, tally):
    outputs = [
        model(a, labels=b, **({} if tally is None else {"global_tally": tally}))
        for a, b in zip(id_BS.split(cuts), labels.split(cuts), strict=True)
    ]
    total = sum(output.objective.sum for output in outputs) / sum(output.objective.count for output in outputs)
    model.zero_grad()
    total.backward()
    return total.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_parts_of_a_global_batch_add_up_with_the_survey_and_not_without(tiny_chronos_t5):
    model = tiny_chronos_t5.train()
    for module in model.modules():
        if hasattr(module, "dropout_rate"):
            module.dropout_rate = 0.0
    model.architecture = model.architecture.replace(load_balancing_weight=50.0, dropout_rate=0.0)
    model.router_z_loss_factor = 0.1
    generator = torch.Generator().manual_seed(0)
    id_BS = torch.randint(3, 64, (20, 40), generator=generator)
    labels = torch.randint(3, 64, (20, 17), generator=generator)
    labels[3] = -100
    labels[5, 4:] = -100
    whole, gradients = parts_of(model, id_BS, labels, [20], None)
    surveys = [
        model(a, labels=b, survey_only=True).tally
        for a, b in zip(id_BS.split([3, 12, 5]), labels.split([3, 12, 5]), strict=True)
    ]
    tally = {name: sum(survey[name] for survey in surveys) for name in surveys[0]}
    assert GlobalBatch.of(tally).num_samples == 19 and tally["labels"] == 18 * 17 + 4
    cut, cut_gradients = parts_of(model, id_BS, labels, [3, 12, 5], tally)
    assert cut == pytest.approx(whole, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(cut_gradients[name], gradient, rtol=1e-4, atol=1e-6)
    alone, _ = parts_of(model, id_BS, labels, [3, 12, 5], None)
    assert abs(alone - whole) > 1e-5 * whole


@pytest.mark.parametrize(("balance", "z_loss", "needed"), [(0.01, 0.0, True), (0.0, 0.1, True), (0.0, 0.0, False)])
def test_a_survey_is_made_where_a_loss_of_the_router_is_on(tiny_chronos_t5, balance, z_loss, needed):
    tiny_chronos_t5.architecture = tiny_chronos_t5.architecture.replace(load_balancing_weight=balance)
    tiny_chronos_t5.router_z_loss_factor = z_loss
    assert FAMILY.experts.needs_survey(tiny_chronos_t5) is needed


def test_outside_training_only_the_forecast_is_scored(tiny_chronos_t5):
    id_BS = torch.randint(3, 64, (6, 40), generator=torch.Generator().manual_seed(0))
    output = tiny_chronos_t5(id_BS, labels=id_BS[:, :17])
    torch.testing.assert_close(output.loss, cross_entropy(output.logits, id_BS[:, :17]).mean)
    assert output.load_loss > 0 and output.tally["expert_load"].sum() == 12
