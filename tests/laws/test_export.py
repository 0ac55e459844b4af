"""Law: what we write, we read back bit for bit, and the reference library reads the same model."""

from __future__ import annotations

import pytest
import torch

from foreloom.models import registry
from foreloom.models.family import WindowLengths

MODELS = {
    "chronos2": ("chronos2", {}),
    "chronos2, unusual": ("chronos2", {"use_arcsinh": False, "d_kv": 10, "quantiles": (0.1, 0.5, 0.9)}),
    "chronos_bolt": ("chronos_bolt", {}),
    "chronos_bolt, unusual": (
        "chronos_bolt",
        {"use_reg_token": False, "d_kv": 10, "quantiles": (0.1, 0.5), "num_decoder_layers": 1, "input_patch_size": 8,
         "feed_forward_proj": "gelu", "relative_attention_num_buckets": 16},
    ),
}  # fmt: skip


@pytest.fixture(params=MODELS)
def family_and_model(request):
    name, fields = MODELS[request.param]
    family = registry.get(name)
    small = {"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64, "initializer_factor": 1.0}
    model = family.build(family.config(**(small | fields)), WindowLengths(96, 32))
    family.initialize(model, 0)
    return family, model.eval()


@pytest.fixture
def context():
    rows = torch.randn(5, 90, generator=torch.Generator().manual_seed(0)).cumsum(1)
    rows[2, :40] = torch.nan
    return rows


def test_round_trip_is_bit_exact(family_and_model, context, tmp_path):
    family, model = family_and_model
    family.save(model, model.state_dict(), tmp_path)
    again = registry.recognise(tmp_path).load(tmp_path)
    assert again.architecture == model.architecture
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert torch.equal(model(context).quantile_preds, again(context).quantile_preds)
    family.save(again, again.state_dict(), tmp_path / "twice")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_the_reference_library_reads_the_same_model(family_and_model, context, tmp_path):
    chronos = pytest.importorskip("chronos", reason="needs chronos-forecasting")
    family, model = family_and_model
    family.save(model, model.state_dict(), tmp_path)
    pipeline = chronos.BaseChronosPipeline.from_pretrained(tmp_path)
    assert (
        type(pipeline).__name__ == {"chronos2": "Chronos2Pipeline", "chronos_bolt": "ChronosBoltPipeline"}[family.name]
    )
    target = torch.randn(5, 32).cumsum(1)
    arguments = {"target": target}
    if family.name == "chronos2":
        ids = torch.tensor([0, 0, 1, 2, 2])
        arguments = {"group_ids": ids, "future_target": target, "num_output_patches": 2}
    with torch.no_grad():
        ours = model(context, **arguments)
        theirs = pipeline.model(context, **arguments)
    gap = (ours.quantile_preds - theirs.quantile_preds).abs()
    assert (gap <= 1e-4 * (ours.scale[..., None] + theirs.quantile_preds.abs())).all()
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)
