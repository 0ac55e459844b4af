"""The guide's rows for those who come from a run_clm.py script: each flag once, with a setting that there is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from foreloom import run

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "migration.md"
FLAGS = {
    "model_name_or_path", "use_flash_attention", "dataset_name", "dataset_config_name", "train_file", "validation_file",
    "max_seq_length", "text_column", "output_dir", "num_train_epochs", "per_device_train_batch_size",
    "per_device_eval_batch_size", "gradient_accumulation_steps", "learning_rate", "weight_decay", "warmup_steps",
    "logging_steps", "save_steps", "eval_steps", "save_total_limit", "seed", "bf16", "fp16", "gradient_checkpointing",
    "report_to", "resume_from_checkpoint",
}  # fmt: skip
"""Of the original script."""
NO_DEFAULT = {"use_flash_attention", "dataset_name", "dataset_config_name", "train_file", "validation_file",
              "output_dir", "bf16", "fp16", "gradient_checkpointing"}  # fmt: skip
"""Flags that are off, or have nothing, where nobody gives them."""


def rows() -> dict[str, str]:
    section = GUIDE.read_text().partition("# Coming from a run_clm.py")[2]
    return dict(re.findall(r"^\| `--(\w+)[^|]*\| (.*) \|$", section, flags=re.MULTILINE))


def test_every_flag_has_a_row():
    assert rows().keys() == FLAGS


def test_every_setting_of_the_rows_is_there_and_the_recipe_has_its_default():
    recipe = run.load("gemma3-270m-finetune", need_data=False)
    assert recipe.sections["data"].packing == "blocks" and recipe.sections["optimizer"].schedule == "linear"
    for flag, row in rows().items():
        overrides = re.findall(r"`([\w.]+=[^`]+)`", row)
        assert overrides or "--resume" in row, flag
        changed = run.load("gemma3-270m-finetune", overrides, need_data=False)
        for override in overrides:
            key, _, value = override.partition("=")
            section, *names = key.split(".")
            if flag not in NO_DEFAULT:
                value_of_recipe, value_of_row = recipe.sections[section], yaml.safe_load(value)
                for name in names:
                    value_of_recipe = value_of_recipe[int(name)] if name.isdigit() else getattr(value_of_recipe, name)
                given = list(value_of_recipe) if isinstance(value_of_recipe, tuple) else value_of_recipe
                assert given == value_of_row, override
        assert changed.sections.keys() == recipe.sections.keys()
