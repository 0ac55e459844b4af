"""`foreloom data audit`: from a recipe to a list that `data.exclude` takes, and into a model card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foreloom.checkpoint.manifest import Manifest, file_record, find_damage
from foreloom.cli.audit import audit
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Series

RECIPE = """extends: chronos2-test
data:
  sources:
    - {{path: ours/data.arrow, holdout: {holdout}}}
    - {{path: theirs/data.arrow}}
    - {{path: "synth://tsmixup?num_series=9&length=150&sources=mixed.arrow,kernel"}}
    - {{path: "synth://kernel?num_series=9"}}
  context_length: 64
  prediction_length: 8
  exclude: {exclude}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A benchmark of six series; training has one of them whole, one rescaled and cut, a third in what it mixes."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    walks = random.normal(size=(9, 200)).cumsum(axis=1)
    for name in ("ours", "theirs", "bench"):
        (tmp_path / name).mkdir()
    two = Series("5", np.stack([walks[5], walks[6]]))
    write_series([*(Series(f"b{n}", walks[n : n + 1]) for n in range(5)), two], tmp_path / "bench" / "data.arrow")
    write_series([Series("other", walks[7:8]), Series("whole", walks[:1])], tmp_path / "ours" / "data.arrow")
    theirs = [Series("cut", 100 - 3 * walks[1:2, 20:120]), Series("two", np.stack([walks[8], walks[6]]))]
    write_series(theirs, tmp_path / "theirs" / "data.arrow")
    write_series([Series("mixed", walks[2:3])], tmp_path / "mixed.arrow")
    (tmp_path / "tasks.yaml").write_text(
        "tasks:\n"
        "  - {name: first, path: bench/data.arrow, prediction_length: 8, num_rolls: 2}\n"
        "  - {name: second, path: bench/data.arrow, prediction_length: 60, leave_out: [b1], variates: joint}\n"
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(holdout=0, exclude="[]"))
    return tmp_path


def found(capsys, *arguments, **options):
    audit(*arguments, as_json=True, **options)
    return json.loads(capsys.readouterr().out)


def test_a_recipe_is_audited_and_what_overlaps_left_out(folder, capsys):
    tasks, recipe, listed = folder / "tasks.yaml", folder / "recipe.yaml", folder / "lists" / "leaks.jsonl"
    seen = found(capsys, recipe, [tasks], out=listed)
    assert {one["series"]: (one["start"], one["length"], one["transform"]) for one in seen["overlaps"]} == {
        "whole": (0, 200, "identical"), "cut": (0, 100, "times 3, sign flipped, shifted"), "two": (0, 200, "identical"),
        "mixed": (0, 200, "identical"),
    }  # fmt: skip
    assert [one["tasks"] for one in seen["overlaps"] if one["series"] == "cut"] == [["first"]]
    first, second = seen["tasks"]
    assert (first["num_series"], first["num_series_found"], first["num_windows"]) == (7, 4, 14)
    assert first["num_windows_found"] == 6, "the stretch that was cut ends before the windows"
    assert (second["num_series"], second["num_series_found"], second["num_windows_found"]) == (6, 3, 3)
    assert "mixed.arrow" in seen["notes"][0] and "synth://kernel?num_series=9 is made of no data" in seen["notes"][1]

    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {(line["source"], line["item"], line["series"]) for line in lines} >= {
        ("ours/data.arrow", 1, "whole"), ("theirs/data.arrow", 0, "cut"), ("theirs/data.arrow", 1, "two"),
    }  # fmt: skip
    assert "200 steps from 0 on are first: b0 from step 0" in next(one["reason"] for one in lines if one["item"] == 1)
    mine = [line for line in listed.read_text().splitlines() if "mixed" not in line]
    (folder / "mine.jsonl").write_text("\n".join(mine[:1]))
    (folder / "yours.jsonl").write_text("\n".join(mine[1:2]))
    recipe.write_text(RECIPE.format(holdout=0, exclude="[mine.jsonl, yours.jsonl]"))
    left = {json.loads(line)["series"] for line in mine[2:]} | {"mixed"}
    assert {one["series"] for one in found(capsys, recipe, [tasks])["overlaps"]} == left


def test_what_a_recipe_holds_out_it_has_not_seen(folder, capsys):
    (folder / "recipe.yaml").write_text(RECIPE.format(holdout=16, exclude="[]"))
    seen = found(capsys, folder / "recipe.yaml", [folder / "tasks.yaml"])
    assert next(one["length"] for one in seen["overlaps"] if one["series"] == "whole") == 184
    assert [one["num_windows_found"] for one in seen["tasks"]] == [4, 3], "only the window of 60 reaches before it"


def test_for_people_and_in_a_card(folder, capsys):
    checkpoint = folder / "step-00000001"
    (checkpoint / "hf").mkdir(parents=True)
    card = checkpoint / "hf" / "README.md"
    card.write_text("---\nlibrary_name: foreloom\n---\n\n# run\n\n## Training\n\n| a | b |\n\n## Licence\n\nOurs.\n")
    (checkpoint / "hf" / "config.json").write_text("{}")
    files = {"hf/README.md": file_record(card)}
    Manifest(
        step=1, num_rows=8, flops=0.0, final=True, scores={}, fingerprint="f", config_hash="c", world_size=1,
        versions={}, files=files,
    ).write(checkpoint)  # fmt: skip
    for _ in range(2):
        audit(folder / "ours", [folder / "tasks.yaml"], card=checkpoint)
    said = " ".join(capsys.readouterr().out.split())
    assert "2 series" in said and "first: b0" in said and f"wrote {card}" in said
    text = card.read_text()
    assert text.count("## Training data beside tasks.yaml") == 1
    assert text.index("## Training\n") < text.index("## Training data") < text.index("| first | 7 | 1 | 14 | 2 | 200 |")
    assert text.endswith("## Licence\n\nOurs.\n")
    assert not find_damage(checkpoint, Manifest.read(checkpoint).files, ["hf/README.md"])
    (folder / "bare").mkdir()
    (folder / "bare" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bare/README\.md: there is no model card"):
        audit(folder / "ours", [folder / "tasks.yaml"], card=folder / "bare")


def test_data_beside_data(folder, capsys):
    seen = found(capsys, folder / "bench", [folder / "ours" / "data.arrow", folder / "theirs" / "data.arrow"])
    assert [(one["task"], one["num_series_found"], one["num_windows"]) for one in seen["tasks"]] == [
        ("ours/data.arrow", 1, 0), ("theirs/data.arrow", 2, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("train", "against", "options", "sentence"),
    [
        ("ours", ["empty.yaml"], {}, "empty.yaml:1: expected a list of tasks under `tasks:`"),
        ("ours", ["short.jsonl"], {}, "none of the benchmark's 1 series has 16 values in a row that change"),
        ("ours", ["nowhere.arrow"], {}, "nowhere.arrow: there is no such file or folder"),
        ("ours", ["tasks.yaml", "bench"], {}, "--against tasks.yaml is a list of tasks: give it alone"),
        ("ours", ["bench"], {"data_root": "bench"}, "--data-root is for tasks and suites"),
        ("ours", ["chronos-lite"], {}, "chronos-lite: say where its data sets lie"),
        ("tiny-lm", ["bench"], {}, "tiny-lm learns from text: there are no series"),
        ("synthetic.yaml", ["bench"], {}, "synthetic.yaml trains on synthetic series alone, which are made of no data"),
        ("ours", ["bench"], {"card": "nowhere"}, "--card nowhere: there is no such folder"),
        ("ours", ["bench"], {"out": "bench/data.arrow"}, "bench is read, and nothing is written over it"),
    ],
)
def test_what_is_refused(folder, train, against, options, sentence):
    (folder / "empty.yaml").write_text("tasks: []\n")
    (folder / "short.jsonl").write_text("[1, 2, 4, 8]\n")
    (folder / "synthetic.yaml").write_text("extends: chronos2-test\ndata: {sources: [{path: 'synth://kernel'}]}\n")
    with pytest.raises(ValueError) as caught:
        audit(Path(train), [Path(one) for one in against], **{key: Path(value) for key, value in options.items()})
    assert sentence in str(caught.value)
    assert not hasattr(caught.value, "__notes__")


def test_options_of_tables_are_of_the_training_data(folder):
    Path("their.csv").write_text("shop,day,sold\na,2024-01-01,1\n")
    with pytest.raises(ValueError, match=r"their.csv: the columns shop, day, sold") as caught:
        audit(Path("ours"), [Path("their.csv")], target="sold")
    assert caught.value.__notes__ == [
        "Options of tables are of TRAIN here: foreloom data convert takes those of --against."
    ]
