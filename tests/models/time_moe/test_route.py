"""Routing of Time-MoE: the steps of each row counted layer by layer, padding never, a bias heeded."""

import numpy as np
import pytest
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.family import RoutedForecaster, WindowLengths
from foreloom.models.time_moe.architecture import TimeMoeConfig
from foreloom.models.time_moe.family import FAMILY
from foreloom.models.time_moe.forecast import TimeMoeForecaster


def an_input(values) -> ForecastInput:
    rows = np.atleast_2d(np.asarray(values, np.float32))
    return ForecastInput(rows, np.empty((len(rows), 0), np.float32), num_targets=len(rows))


def test_steps_are_counted_by_row_and_layer(tiny_time_moe):
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=length).cumsum() for length in (60, 11, 60, 25)]
    forecaster = TimeMoeForecaster(tiny_time_moe)
    assert isinstance(forecaster, RoutedForecaster)
    choices = forecaster.route([an_input(row) for row in rows])
    assert choices.chosen_RLE.shape == (4, 2, 4) and choices.top_k == 2
    for row, chosen_LE, probability_LE in zip(rows, choices.chosen_RLE, choices.probability_RLE, strict=True):
        scaled = torch.tensor((row - row.mean()) / row.std(ddof=1), dtype=torch.float32)[None]
        logits_LNE = tiny_time_moe(scaled, output_router_logits=True).router_logits
        for layer in range(2):
            best_NK = logits_LNE[layer].topk(2).indices
            np.testing.assert_array_equal(chosen_LE[layer], torch.bincount(best_NK.flatten(), minlength=4))
        np.testing.assert_allclose(probability_LE, logits_LNE.softmax(-1).mean(1), rtol=1e-4, atol=1e-6)
    two = forecaster.route([an_input(np.stack([rows[0], rows[2]]))], batch_size=1)
    np.testing.assert_array_equal(two.chosen_RLE, choices.chosen_RLE[[0, 2]])


def test_a_bias_has_a_say_in_the_choice_and_none_in_the_probabilities():
    config = TimeMoeConfig(size="test", hidden_size=32, intermediate_size=64, horizon_lengths=(1, 4), balance="bias")
    model = FAMILY.build(config, WindowLengths(40, 4))
    FAMILY.initialize(model, 0)
    inputs = [an_input(np.sin(np.arange(40.0)))]
    before = TimeMoeForecaster(model).route(inputs)
    rarest = int(before.chosen_RLE[0, 0].argmin())
    model.model.layers[0].ffn_layer.expert_bias[rarest] = 5.0
    after = TimeMoeForecaster(model).route(inputs)
    assert after.chosen_RLE[0, 0, rarest] == 40 > before.chosen_RLE[0, 0, rarest]
    np.testing.assert_array_equal(after.probability_RLE[:, 0], before.probability_RLE[:, 0])


def test_a_dense_model_has_no_routing_to_tell_of():
    config = TimeMoeConfig(size="test", hidden_size=32, intermediate_size=64, use_dense=True)
    model = FAMILY.build(config, WindowLengths(40, 4))
    FAMILY.initialize(model, 0)
    with pytest.raises(ValueError, match=r"no experts \(use_dense is true\)"):
        TimeMoeForecaster(model).route([an_input(np.arange(5.0))])
