"""Encoder states, logits, loss, gradients and sampling of chronos-forecasting 2.3.2, on its checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from chronos_t5_parity import arrays, load

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_t5.forecast import ChronosT5Forecaster
from foreloom.models.chronos_t5.generate import Sampling

CASES = [("t5_dummy", "dummy-chronos-model"), ("t5b", "t5b")]


def teacher_forced(shared, name: str, checkpoint: str):
    model, case = load(shared, checkpoint), arrays(shared, name)
    arguments = {key: torch.from_numpy(case[key]) for key in ("input_ids", "attention_mask", "labels")}
    return model, case, model(**arguments)


@pytest.mark.parametrize(("name", "checkpoint"), CASES)
def test_states_logits_and_loss(shared, name, checkpoint):
    _, case, output = teacher_forced(shared, name, checkpoint)
    seen = case["attention_mask"]
    np.testing.assert_allclose(output.memory.hidden_BSD.detach()[seen], case["out_encoder"][seen], atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(output.logits.detach(), case["out_logits"], atol=2e-5, rtol=1e-4)
    assert output.loss.item() == pytest.approx(float(case["out_loss"]), rel=1e-6)
    assert output.objective.count == (case["labels"] >= 0).sum()


@pytest.mark.parametrize(("name", "checkpoint"), CASES)
def test_gradients(shared, name, checkpoint):
    model, _, output = teacher_forced(shared, name, checkpoint)
    output.loss.backward()
    expected = json.loads((shared / "oracles" / "chronos" / f"{name}.grads.json").read_text())
    total = expected["total_grad_norm"]
    norms = {name: float(p.grad.norm()) for name, p in model.named_parameters()}
    reference = {name: norm for name, norm in expected["grad_norms"].items() if name in norms}
    assert norms.keys() == reference.keys()
    worst = max(abs(norms[name] - reference[name]) for name in norms)
    assert worst <= 1e-5 * total


@pytest.mark.parametrize(("name", "checkpoint"), CASES)
def test_the_likeliest_tokens_and_what_they_stand_for(shared, name, checkpoint):
    model, case = load(shared, checkpoint), arrays(shared, name)
    length = int(case["in_greedy_length"])
    forecaster = ChronosT5Forecaster(model, Sampling(num_samples=1, temperature=1.0, top_k=1, top_p=1.0))
    inputs = [
        ForecastInput(row[None], np.empty((1, length), np.float32), num_targets=1)
        for row in case["in_context"][:, -model.architecture.context_length :]
    ]
    paths = np.concatenate(forecaster.predict(inputs, length))
    np.testing.assert_allclose(paths[:, 0], case["out_greedy_values"], rtol=1e-6)


@pytest.mark.parametrize(("name", "checkpoint"), CASES)
def test_samples_have_the_published_distribution(shared, name, checkpoint):
    """The first step's probabilities exactly, the quantiles of 200 paths as far as 200 paths tell."""
    model, case = load(shared, checkpoint), arrays(shared, name)
    num_samples = 4000
    length = case["out_sample_quantiles"].shape[-1]
    forecaster = ChronosT5Forecaster(model)
    contexts = case["in_context"][:, -model.architecture.context_length :]
    inputs = [ForecastInput(row[None], np.empty((1, length), np.float32), num_targets=1) for row in contexts]
    paths = np.concatenate(forecaster.predict(inputs, length, num_samples=num_samples))
    tokenizer, scale = model.tokenizer, case["scale"]
    lowest, second = tokenizer.center_K[:2].tolist()
    drawn = np.rint((paths[:, :, 0] / scale[:, None] - lowest) / (second - lowest))
    probability = case["out_first_step_sampling_probs"]
    special = model.architecture.n_special_tokens + 1
    folded = probability[:, special:].copy()
    folded[:, 0] += probability[:, :special].sum(1)  # special tokens decode to the lowest centre
    for row in range(len(paths)):
        counts = np.bincount(drawn[row].astype(int), minlength=folded.shape[1]) / num_samples
        deviation = np.sqrt(folded[row] * (1 - folded[row]) / num_samples)
        assert np.abs(counts - folded[row]).max() < 5 * deviation.max() + 1e-9
        assert (counts[folded[row] == 0] == 0).all()
    for place, level in enumerate((0.1, 0.5, 0.9)):
        ours = np.quantile(paths, level, axis=1)
        spread = np.quantile(paths, 0.9, axis=1) - np.quantile(paths, 0.1, axis=1)
        error = np.abs(ours - case["out_sample_quantiles"][place]) / np.maximum(spread, scale[:, None])
        assert np.median(error) < 0.1
