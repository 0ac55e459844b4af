"""Seasonal Naive reproduces every Chronos score published for a data set of the shared pack."""

import pytest
import yaml

from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.tasks import EvaluationTask


def published(data):
    """(task, MASE, WQL) of every meta.yaml with a published score; pooled sets once."""
    found = {}
    for file in sorted(data.glob("*/meta.yaml")):
        meta = yaml.safe_load(file.read_text())
        protocol = meta.get("chronos_pooled") or meta.get("chronos")
        scores = meta.get("chronos_pooled") or meta.get("seasonal_naive", {})
        if not protocol or "published_mase" not in scores:
            continue
        name = protocol["name"]
        path = (*found[name][0].paths, file.parent) if name in found else (file.parent,)
        window = {key: protocol[key] for key in ("prediction_length", "offset", "num_rolls") if key in protocol}
        found[name] = (
            EvaluationTask(name=name, path=path, **window),
            scores["published_mase"],
            scores["published_wql"],
        )
    return list(found.values())


def test_seasonal_naive_equals_the_published_numbers(shared):
    expected = published(shared / "data")
    assert len(expected) == 14
    result = evaluate(SeasonalNaive(), [task for task, *_ in expected])
    for task, (_, mase, wql) in zip(result.tasks, expected, strict=True):
        assert task.num_skipped == 0
        assert task.scores["MASE"] == pytest.approx(mase, abs=1e-5), task.name
        assert task.scores["WQL"] == pytest.approx(wql, abs=1e-5), task.name
