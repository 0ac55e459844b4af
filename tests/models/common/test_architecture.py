"""Sections that are made from an architecture: every family's settings have its types, sentences and sizes."""

from __future__ import annotations

import dataclasses

import pytest

from foreloom.config.loader import validate
from foreloom.config.located import Located
from foreloom.models import registry


@pytest.mark.parametrize("name", [name for name in registry.names() if name != "causal_lm"])
def test_every_setting_has_a_sentence_and_what_is_left_out_is_the_size(name):
    section = registry.get(name).config
    for field in dataclasses.fields(section):
        assert section.__pydantic_fields__[field.name].description, field.name
    optional = {field.name for field in dataclasses.fields(section) if field.default is None}
    assert optional >= set(section.architecture_fields) >= set(section.changeable)
    for size, fields in section.sizes.items():
        config = section(size=size)
        assert config.given() == {}
        assert {key: config.new_values()[key] for key in fields} == fields
        first = next(iter(fields))
        assert section(size=size, **{first: fields[first]}).given() == {first: fields[first]}


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        ("chronos2", {"d_model": 0}, "model.d_model: expected a number of at least 1, got 0."),
        ("chronos2", {"d_modle": 8}, "model.d_modle: unknown setting. Did you mean d_model?"),
        ("chronos_bolt", {"num_layers": "two"}, "model.num_layers: expected a whole number, got 'two'."),
        ("chronos_t5", {"router_choice": "biasd"}, "got 'biasd'. Did you mean biased?"),
        ("chronos_t5", {"dropout_rate": 1.0}, "model.dropout_rate: expected a number below 1.0, got 1.0."),
        ("time_moe", {"horizon_lengths": [1, 0]}, "model.horizon_lengths.1: expected a number of at least 1, got 0."),
    ],
)
def test_what_is_wrong_is_said_as_of_any_section(name, wrong, sentence):
    section = registry.get(name).config
    _, problems = validate(section, {"size": next(iter(section.sizes)), **wrong}, Located({}), "model")
    assert len(problems) == 1 and sentence in problems[0], problems


@pytest.mark.parametrize("name", [name for name in registry.names() if name != "causal_lm"])
def test_a_config_json_comes_back_as_it_was(name):
    section = registry.get(name).config
    architecture = section.architecture
    values = section(size=next(iter(section.sizes))).new_values()
    lengths = dict.fromkeys(section.from_data, 96)
    published = architecture(**(lengths | values)).to_published("float32")
    again = architecture.from_published(published)
    assert again == architecture(**(lengths | values)) and again.to_published("float32") == published
