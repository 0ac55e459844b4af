"""Efficiency on paper: the range of GPUs, meshes, and what slow networks cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foreloom.cli import app
from foreloom.config.shipped import find_recipe
from foreloom.distributed.mesh import MeshShape
from foreloom.plan.cluster import find_cluster
from foreloom.plan.scale import parse_range, scale, shape_of
from foreloom.run.recipe import load


def test_numbers_and_meshes() -> None:
    assert parse_range("1..1024") == [2**n for n in range(11)]
    assert parse_range("3..16") == [3, 6, 12, 16]
    for wrong in ("1024", "8..4", "0..8", "a..b"):
        with pytest.raises(ValueError, match=r"write the fewest and the most GPUs, 1\.\.1024"):
            parse_range(wrong)
    assert shape_of("HSDP", 64, 8) == MeshShape("fsdp", 8, 8)
    assert shape_of("HSDP", 4, 8) == MeshShape("fsdp", 1, 4) == shape_of("FSDP2", 4, 8)
    assert shape_of("DDP", 4, 8) == MeshShape("ddp", 4, 1)


def test_efficiency_falls_with_what_has_to_be_moved() -> None:
    recipe = load(find_recipe("chronos2-base"), need_data=False)
    asked = {"gpu": "a100-80gb", "num_gpus": 8, "per_machine": 8, "mfu": 0.4}
    cluster, precision = find_cluster("auto", **asked)
    found = scale(recipe, cluster, precision, [1, 8, 64, 1024], None)
    of = {(one.strategy, one.num_gpus): one for one in found.points}
    assert of["DDP", 1].grows == of["DDP", 1].stays == (pytest.approx(1.0), pytest.approx(1.0))
    for strategy in ("DDP", "FSDP2", "HSDP"):
        lows = [of[strategy, number].grows[0] for number in (8, 64, 1024)]
        assert lows == sorted(lows, reverse=True) and lows[-1] > 0.5, strategy
        stays = of[strategy, 1024].stays
        assert stays and stays[0] < 0.5 * lows[-1]  # a row a GPU does not pay for its gradients
        assert all(one.grows[0] <= one.grows[1] <= 1.2 for one in found.points)
    slow, _ = find_cluster("auto", network=1e9, **asked)
    narrow = {(one.strategy, one.num_gpus): one for one in scale(recipe, slow, precision, [8, 64], None).points}
    assert narrow["DDP", 8] == of["DDP", 8] and narrow["DDP", 64].grows[0] < of["DDP", 64].grows[0]
    assert narrow["HSDP", 64].grows[0] > narrow["FSDP2", 64].grows[0]  # it gathers within a machine
    measured = scale(recipe, cluster, precision, [64], 10.0).points[0]
    assert measured.grows[0] > of["DDP", 64].grows[0]


def test_a_table_and_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    asked = ["plan", "chronos2-base", "--gpus", "8", "--gpu", "a100-80gb", "--scale", "1..64"]
    printed = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "scaling.svg")])
    assert printed.exit_code == 0, printed.output
    assert max(map(len, printed.output.splitlines())) <= 80 and "HSDP" in printed.output
    assert "FSDP2" in (tmp_path / "scaling.svg").read_text()
    points = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)["points"]
    assert len(points) == 3 * 7
    alone = CliRunner().invoke(app, [*asked[:-2], "--step-seconds", "1"])
    assert alone.exit_code == 2 and "go with --scale" in alone.output
