"""Ten steps of AdamW against Chronos2Pipeline.fit on the same batches."""

from __future__ import annotations

import json

import pytest
import torch
from chronos2_parity import arrays, load
from safetensors.torch import load_file


def test_fit_trajectory(shared):
    case, model = arrays(shared, "c2a_fit"), load(shared, "c2a")
    reference = json.loads((shared / "oracles" / "chronos" / "c2a_fit.json").read_text())
    final = load_file(shared / "oracles" / "chronos" / "c2a_fit.final.safetensors")
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    for step, record in enumerate(reference["log"]):
        inputs = ("context", "future_target", "future_covariates", "group_ids")
        batch = {name: torch.from_numpy(case[f"step{step:02d}_{name}"]) for name in inputs}
        loss = model(**batch, num_output_patches=int(case["num_output_patches"])).loss
        assert loss.item() == pytest.approx(record["loss"], abs=2e-5)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert norm.item() == pytest.approx(record["grad_norm_preclip"], rel=1e-4)
        optimizer.param_groups[0]["lr"] = record["learning_rate"]
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        update = (parameter.detach() - start[name]).norm().item()
        assert update == pytest.approx(reference["update_norms"][name], rel=1e-4, abs=1e-6), name
        assert (parameter.detach() - final[name]).norm().item() <= 1e-3 * update + 1e-6, name
