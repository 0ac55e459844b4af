"""Parameters of recipes and models: the figures, nothing allocated, sentences for what cannot be counted."""

import csv

import pytest
import torch

from foreloom.models.chronos_t5.family import FAMILY
from foreloom.models.family import WindowLengths
from foreloom.report.parameters import (
    parameter_table,
    parameters,
    size_of_model,
    size_of_recipe,
)
from foreloom.report.tables import print_or_write


def test_the_tiny_sample_with_experts():
    size = size_of_recipe("chronos-t5-tiny-moe-sample")
    assert (size.total.num_parameters, size.total.num_active) == (10_794_372, 9_217_924)
    assert size.mixture is not None
    assert (size.mixture.num_parameters, size.mixture.num_active) == (3_186_308, 33_412 + 3_152_896 // 2)
    assert (size.context_length, size.horizon) == (64, 24)
    plain = size_of_recipe("chronos-t5-tiny-sample")
    assert plain.mixture is None
    assert plain.total.num_parameters == plain.total.num_active == 10_794_372 - 3_186_308
    assert plain.flops_per_row < size.flops_per_row


def test_a_recipe_is_counted_without_memory_for_it(monkeypatch):
    def allocate(*_, **__):
        raise AssertionError("nothing is to be allocated")

    monkeypatch.setattr(torch.nn.Module, "to_empty", allocate)
    size = size_of_recipe("time-moe-50m", ["model.size=ultra"])
    assert size.total.num_parameters == 2_416_545_792
    notes = " ".join(parameter_table(size, "").notes)
    assert "9.0 GB in float32, 4.5 GB in bfloat16; AdamW's state: 18.0 GB" in notes


def test_a_model_is_counted_as_its_recipe(tiny_chronos_t5, tmp_path):
    FAMILY.save(tiny_chronos_t5, tiny_chronos_t5.state_dict(), tmp_path)
    size = size_of_model(tmp_path)
    assert size.total.num_parameters == sum(p.numel() for p in tiny_chronos_t5.parameters())
    assert (size.context_length, size.horizon) == (96, 16)
    assert size.flops_per_row == FAMILY.flops_per_row(tiny_chronos_t5, WindowLengths(96, 16))


def test_a_pretrained_recipe_is_that_model_with_what_it_changes(tiny_chronos_t5, tmp_path):
    FAMILY.save(tiny_chronos_t5, tiny_chronos_t5.state_dict(), tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{family: chronos_t5, pretrained: {tmp_path}}}\n"
        "data: {context_length: 48, prediction_length: 8, sources: [{path: nowhere.parquet}]}\n"
        "training: {steps: 1}\n"
    )
    size, fewer = size_of_recipe(recipe), size_of_recipe(recipe, ["model.num_active_experts=1"])
    assert size.parts == size_of_model(tmp_path).parts
    assert (size.context_length, size.horizon) == (48, 8)
    assert fewer.total.num_parameters == size.total.num_parameters
    assert fewer.total.num_active < size.total.num_active and fewer.flops_per_row < size.flops_per_row


def test_the_table_in_its_forms(tmp_path, capsys):
    print_or_write(parameters("chronos-t5-tiny-moe-sample"), None, tmp_path / "parameters.csv")
    rows = list(csv.DictReader((tmp_path / "parameters.csv").open()))
    assert sum(int(row["Parameters"]) for row in rows) == 10_794_372
    print_or_write(parameters("chronos-t5-tiny-moe-sample", ["model.num_experts=8"]), "markdown", None)
    printed = capsys.readouterr().out
    assert "| **total** | **13,947,784** |" in printed and "The experts add" in printed
    print_or_write(parameters("quickstart"), "markdown", None)
    assert "experts" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "overrides", "sentence"),
    [
        ("nowhere/model", [], "there is no folder nowhere/model"),
        ("quickstrat.yaml", [], "Did you mean quickstart"),
        ("time-moe-50m", ["model.sise=ultra"], "unknown setting"),
    ],
)
def test_what_cannot_be_counted_gets_a_sentence(tmp_path, monkeypatch, what, overrides, sentence):
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        parameters(what, overrides)


def test_two_models_and_a_recipe_misspelt():
    with pytest.raises(ValueError, match=r"runs/b is no setting \(name=value\), and models are counted one at a time"):
        parameters("runs/a", ["runs/b"])
    with pytest.raises(ValueError, match="chronos-t5-smal: no such folder.*Did you mean chronos-t5-small"):
        parameters("chronos-t5-smal", [])


def test_a_trained_model_s_settings_are_not_changed(tmp_path):
    with pytest.raises(ValueError, match=r"model.num_experts=3: .* is no recipe"):
        parameters(str(tmp_path), ["model.num_experts=3"])
