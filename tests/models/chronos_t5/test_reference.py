"""chronos-forecasting reads what we write and forecasts the same; what it cannot honour, it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foreloom.data.forecast_input import ForecastInput
from foreloom.models.chronos_t5.architecture import ChronosT5Config
from foreloom.models.chronos_t5.family import FAMILY
from foreloom.models.chronos_t5.forecast import ChronosT5Forecaster
from foreloom.models.family import WindowLengths

chronos = pytest.importorskip("chronos", reason="needs chronos-forecasting")


def written(folder, **fields):
    config = ChronosT5Config(size="tiny", d_model=32, d_ff=64, num_layers=2, num_heads=4, n_tokens=128, **fields)
    model = FAMILY.build(config, WindowLengths(60, 12))
    FAMILY.initialize(model, 0)
    FAMILY.save(model, model.state_dict(), folder)
    return model.eval()


@pytest.mark.parametrize(
    "fields", [{"initializer_factor": 1.0, "d_kv": 8}, {"model_type": "causal", "initializer_factor": 0.5}]
)
def test_the_likeliest_forecast_is_the_same(tmp_path, fields):
    ours = written(tmp_path, **fields)
    pipeline = chronos.BaseChronosPipeline.from_pretrained(tmp_path)
    assert type(pipeline).__name__ == "ChronosPipeline"
    rng = np.random.default_rng(0)
    contexts = [rng.normal(size=length).astype(np.float32) for length in (60, 33, 7)]
    theirs = pipeline.predict(
        [torch.from_numpy(x) for x in contexts], prediction_length=12, num_samples=1, top_k=1
    ).numpy()  # fmt: skip
    inputs = [ForecastInput(x[None], np.empty((1, 12), np.float32), num_targets=1) for x in contexts]
    mine = np.concatenate(ChronosT5Forecaster(ours).predict(inputs, 12, num_samples=1, top_k=1))
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_a_folder_with_experts_is_refused_there(tmp_path):
    written(tmp_path, use_moe=True, num_experts=4)
    with pytest.raises((ValueError, AttributeError, KeyError)):
        chronos.BaseChronosPipeline.from_pretrained(tmp_path)
