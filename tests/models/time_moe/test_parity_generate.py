"""Generation against the official code's own: every schedule of horizons, with and without the cache."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from time_moe_parity import MODELS, arrays, load, oracles

from foreloom.models.time_moe.generate import horizon_for


@pytest.mark.parametrize("name", MODELS)
def test_forecasts(shared, name):
    folder = oracles(shared) / "models" / name
    model, reference = load(folder), arrays(folder / "generate.npz")
    model.protocol = "standard"  # the two agree
    num_compared = 0
    for key, theirs in reference.items():
        if "_new" not in key:
            continue
        case, _, settings = key.partition("_new")
        num_new, _, cache = settings.partition("_")
        inputs = torch.from_numpy(reference[f"{case}_input"])
        mask = reference.get(f"{case}_attention_mask")
        ours = model.generate(
            inputs,
            max_new_tokens=int(num_new),
            attention_mask=None if mask is None else torch.from_numpy(mask),
            use_cache=cache == "cache",
        )
        assert torch.equal(ours[:, : inputs.shape[1]], inputs)
        np.testing.assert_allclose(ours[:, inputs.shape[1] :], theirs, rtol=1e-5, atol=1e-5, err_msg=key)
        num_compared += 1
    assert num_compared == 23


def test_schedule_of_horizons(shared):
    schedules = json.loads((oracles(shared) / "models" / "moe4" / "generate_schedule.json").read_text())
    for key, theirs in schedules.items():
        left, ours = int(key.split("_new")[1].split("_")[0]), []
        while left > 0:
            ours.append(horizon_for(left, (1, 8, 32, 64)))
            left -= ours[-1]
        assert ours == theirs, key
    assert len(schedules) > 10
