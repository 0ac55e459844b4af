"""Law: what we write, we read back bit for bit, and the reference library reads the same model."""

from __future__ import annotations

import pytest
import torch

from foreloom.models import registry
from foreloom.models.chronos2.family import FAMILY, Chronos2Config


@pytest.fixture(params=[{}, {"use_arcsinh": False, "d_kv": 10, "quantiles": (0.1, 0.5, 0.9)}], ids=["usual", "unusual"])
def model(request):
    config = Chronos2Config(
        **({"size": "test", "d_model": 32, "d_kv": 8, "d_ff": 64, "initializer_factor": 1.0} | request.param)
    )
    model = FAMILY.build(config, context_length=96, prediction_length=32)
    FAMILY.initialize(model, 0)
    return model.eval()


@pytest.fixture
def context():
    rows = torch.randn(5, 90, generator=torch.Generator().manual_seed(0)).cumsum(1)
    rows[2, :40] = torch.nan
    return rows


def test_round_trip_is_bit_exact(model, context, tmp_path):
    FAMILY.save(model, model.state_dict(), tmp_path)
    again = registry.recognise(tmp_path).load(tmp_path)
    assert again.architecture == model.architecture
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert torch.equal(model(context).quantile_preds, again(context).quantile_preds)
    FAMILY.save(again, again.state_dict(), tmp_path / "twice")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_the_reference_library_reads_the_same_model(model, context, tmp_path):
    chronos = pytest.importorskip("chronos", reason="needs chronos-forecasting")
    FAMILY.save(model, model.state_dict(), tmp_path)
    pipeline = chronos.BaseChronosPipeline.from_pretrained(tmp_path)
    assert type(pipeline).__name__ == "Chronos2Pipeline"
    ids, target = torch.tensor([0, 0, 1, 2, 2]), torch.randn(5, 32).cumsum(1)
    with torch.no_grad():
        theirs = pipeline.model(context, group_ids=ids, future_target=target, num_output_patches=2)
        ours = model(context, group_ids=ids, future_target=target, num_output_patches=2)
    gap = (ours.quantile_preds - theirs.quantile_preds).abs()
    assert (gap <= 1e-4 * (ours.scale[..., None] + theirs.quantile_preds.abs())).all()
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)
