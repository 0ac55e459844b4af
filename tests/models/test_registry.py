"""Families are found by name and by folder; what is not one gets a sentence."""

from __future__ import annotations

import json

import pytest

from foreloom.models import registry


def test_names_lead_to_records():
    for name in registry.names():
        assert registry.get(name).name == name


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="no model family 'chronos-2'.*Did you mean chronos2"):
        registry.get("chronos-2")


def test_folders_that_are_no_model_of_ours(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        registry.recognise(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "model_type": "bert"}))
    with pytest.raises(ValueError, match="does not know.*BertModel"):
        registry.recognise(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": None, "model_type": "t5"}))
    with pytest.raises(ValueError, match="does not know.*t5"):
        registry.recognise(tmp_path)
    (tmp_path / "config.json").write_text('{\n"model_type": "t5",,\n}')
    with pytest.raises(ValueError, match=r"config\.json:2: not valid JSON"):
        registry.recognise(tmp_path)
