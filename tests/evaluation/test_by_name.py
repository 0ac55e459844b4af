"""Names on the command line become forecasters: ours, the baselines', chronos-forecasting's."""

from __future__ import annotations

import pytest
import torch

from foreloom.evaluation.adapters.chronos import ChronosPipeline
from foreloom.evaluation.baselines import Drift, Naive, SeasonalNaive
from foreloom.evaluation.by_name import forecasters_by_name, labels

CPU = torch.device("cpu")


def test_baselines_stand_where_models_stand():
    entered = forecasters_by_name(["seasonal-naive", "naive", "drift"], CPU)
    assert list(entered) == ["naive", "drift", "seasonal-naive"], "Seasonal Naive last"
    assert [type(one) for one in entered.values()] == [Naive, Drift, SeasonalNaive]
    assert list(forecasters_by_name(["seasonal-naive"], CPU)) == ["seasonal-naive"]
    with pytest.raises(ValueError, match="the model naive is there twice"):
        forecasters_by_name(["naive", "naive"], CPU)
    with pytest.raises(ValueError, match="no folder naife, and no baseline of that name. Did you mean naive?"):
        forecasters_by_name(["naife"], CPU)


def test_folders_of_one_name_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/model", "b/model", "c/other", "naive"):
        (tmp_path / name).mkdir(parents=True)
    assert labels(["a/model", "c/other", "amazon/chronos-2"]) == ["model", "other", "amazon/chronos-2"]
    assert labels(["a/model", "b/model"]) == ["a/model", "b/model"]
    assert labels(["chronos:c/other", "c/other"]) == ["chronos:c/other", "c/other"]
    assert labels(["chronos:c/other"]) == ["other"]
    assert labels(["./c/../naive", "naive"]) == ["c/../naive", "naive"]


def test_a_model_that_is_not_ours_is_loaded_by_its_package(shared, tiny_chronos2, tmp_path, monkeypatch):
    pytest.importorskip("chronos")
    monkeypatch.setattr("foreloom.models.registry._BUILT_IN", ("chronos2",))
    from foreloom.models.chronos2.family import FAMILY

    FAMILY.save(tiny_chronos2, tiny_chronos2.state_dict(), tmp_path / "ours")
    bolt = shared / "data/fixtures/dummy-chronos-bolt-model"
    entered = forecasters_by_name([tmp_path / "ours", f"chronos:{tmp_path / 'ours'}", bolt], CPU)
    ours, theirs, other, baseline = entered.values()
    assert not isinstance(ours, ChronosPipeline)
    assert isinstance(theirs, ChronosPipeline) and isinstance(other, ChronosPipeline)
    assert isinstance(baseline, SeasonalNaive)
    assert list(entered)[2:] == ["dummy-chronos-bolt-model", "seasonal-naive"]
