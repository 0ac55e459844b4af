"""The coordinate check and the transfer of learning rates on recipes, and what they say of what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foreloom.cli import app
from foreloom.config.shipped import find_recipe
from foreloom.lab.mup.coordinates import check
from foreloom.lab.mup.figures import basin_figure
from foreloom.lab.mup.transfer import FILE_NAME, Basin, shift_of, sweep
from foreloom.lab.mup.trial import parse_kinds, parse_numbers, parse_rates, standing
from foreloom.report.style import save_figure

ROOT = Path(__file__).resolve().parents[3]
SMALL = {
    "chronos2": ["model.d_model=32", "model.d_kv=8", "model.num_heads=4", "model.d_ff=128"],
    "time_moe": ["model.hidden_size=32", "model.intermediate_size=64", "model.initializer_range=0.2"],
    "chronos_t5": ["model.d_model=32", "model.d_kv=8", "model.num_heads=4", "model.d_ff=128", "model.num_layers=2",
                   "model.n_tokens=64", "model.initializer_factor=1.0"],
}  # fmt: skip


def recipe(folder: Path, family: str) -> tuple[Path, list[str]]:
    """A recipe of a small model on monthly series, and the settings that make it so."""
    size = "tiny" if family == "chronos_t5" else "test"
    path = folder / f"{family}.yaml"
    path.write_text(
        f"model: {{family: {family}, size: {size}}}\n"
        f"data:\n  sources: [{{path: {ROOT / 'examples/data/m3_monthly.parquet'}}}]\n"
        "  context_length: 48\n  prediction_length: 16\n"
        f"  normalization: {'zero' if family == 'time_moe' else 'none'}\n"
        "training: {steps: 3, batch_size: 8, device: cpu, precision: fp32}\n"
        "optimizer: {learning_rate: 0.004}\n"
    )
    return path, SMALL[family]


@pytest.mark.parametrize("family", SMALL)
def test_the_check_tells_mup_from_standard(tmp_path: Path, family: str) -> None:
    path, settings = recipe(tmp_path, family)
    with standing(path, [*settings, "training.batch_size=4"], [32, 64, 128]) as (bench, widths):
        mup, standard = (check(bench, kind, "width", widths, num_seeds=2, num_steps=1) for kind in ("mup", "standard"))
        heads = {row.name.removesuffix(".weight") for row in bench.rows("mup", bench.section) if row.kind == "output"}
    # So narrow models from two seeds are far from the limit that the rules are for: a wider band than the check's own.
    grows = lambda found: max(one.delta_slope or 0.0 for one in found.slopes if one.module not in heads)
    assert grows(mup) < 0.3 and grows(standard) > 0.6
    assert any("where muP has" in one and "slope +" in one for one in standard.failures)


def test_a_head_is_judged_by_what_it_learned() -> None:
    settings = [
        "model.num_layers=1", "model.tie_embeddings=false", "model.init=xavier", "optimizer.learning_rate=1e-3",
        "training.batch_size=4", "data.max_seq_length=32",
    ]  # fmt: skip
    with standing(find_recipe("decoder-tiny"), settings, [64, 128, 256]) as (bench, widths):
        mup, standard = (check(bench, kind, "width", widths, num_seeds=2, num_steps=2) for kind in ("mup", "standard"))
    # The recipe reads these guides, so the verdict on so few bytes may change with a sentence of them.
    for one in mup.slopes:
        if one.module == "logits" and one.step:
            assert abs(one.judged_slope) < 0.3
            assert one.delta_slope < one.judged_slope - 0.1, "what a random head makes of the change before it falls"
        elif one.step:
            assert one.judged_slope == one.delta_slope, one.module
    assert any(sentence.startswith("logits: its change grows") for sentence in standard.failures)


def test_transfer_keeps_what_it_has_trained(tmp_path: Path) -> None:
    path, settings = recipe(tmp_path, "chronos2")
    told: list[str] = []
    for _ in range(2):
        with standing(path, settings, [32, 64]) as (bench, widths):
            found = sweep(
                bench, ["mup"], widths, [-8.0, -7.0, -6.0], num_seeds=1, out=tmp_path / "out", tell=told.append
            )
    assert len(told) == 6 and len((tmp_path / "out" / FILE_NAME).read_text().splitlines()) == 7
    save_figure(basin_figure(found), tmp_path / "basins.svg")
    other = standing(path, [*settings, "training.seed=9"], [32, 64])
    with other as (bench, widths), pytest.raises(ValueError, match="transfer.csv:2: of another recipe"):
        sweep(bench, ["mup"], widths, [-8.0], num_seeds=1, out=tmp_path / "out")
    # The recipe has no base width, so the first width is the base, and what was trained from another is another run.
    with standing(path, settings, [64, 128]) as (bench, widths), pytest.raises(ValueError, match="another base width"):
        sweep(bench, ["mup"], widths, [-8.0], num_seeds=1, out=tmp_path / "out")
    with (tmp_path / "out" / FILE_NAME).open("a") as file:
        file.write("cut")
    with standing(path, settings, [32, 64]) as (bench, widths), pytest.raises(ValueError, match="csv:8: expected the"):
        sweep(bench, ["mup"], widths, [-8.0], num_seeds=1, out=tmp_path / "out")


def test_octaves_are_counted_between_vertices() -> None:
    parabola = lambda best: {rate: 1 + (rate - best) ** 2 for rate in (-8.0, -7.0, -6.0, -5.0)}
    narrow, wide = Basin("mup", 64, parabola(-6.25)), Basin("mup", 128, parabola(-6.75))
    assert narrow.vertex == pytest.approx(-6.25) and wide.vertex == pytest.approx(-6.75)
    assert "moves by -0.5 octaves from width 64 to 128" in shift_of([narrow, wide])
    diverged = Basin("standard", 128, {-8.0: 1.0, -7.0: 2.0, -6.0: float("inf")})
    assert diverged.vertex is None and diverged.is_at_edge
    said = shift_of([narrow, diverged])
    assert "moves by -2.0 octaves" in said and "it diverges" in said and "widen --rates" in said


def test_commands(tmp_path: Path) -> None:
    path, settings = recipe(tmp_path, "chronos2")
    run = lambda *words: CliRunner().invoke(app, ["lab", "mup", *words])
    shown = run("table", str(path), *settings, "parametrization.kind=mup", "parametrization.base_width=8",
                "--format", "json")  # fmt: skip
    rows = json.loads(shown.stdout)
    assert "output_patch_embedding.residual_layer.weight" in str(rows) and "hidden" in str(rows)
    checked = run("coord-check", str(path), *settings, "--widths", "32,64", "--seeds", "1", "--steps", "1", "--kinds",
                  "legacy-geomean", "--plot", str(tmp_path / "check.png"))  # fmt: skip
    assert checked.exit_code == 1 and "legacy-geomean FAILS" in checked.stdout and (tmp_path / "check.png").is_file()
    swept = run("transfer", str(path), *settings, "training.steps=1", "--widths", "32,64", "--rates=-8:-6", "--kinds",
                "mup", "--out", str(tmp_path / "transfer"))  # fmt: skip
    assert swept.exit_code == 0 and "octaves from width 32 to 64" in swept.stdout


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--widths: '64' has too few to compare"):
        parse_numbers("64", "--widths")
    with pytest.raises(ValueError, match="--widths: '64,wide' is no list"):
        parse_numbers("64,wide", "--widths")
    with pytest.raises(ValueError, match="--kinds: 'mupp' is none of standard, mup"):
        parse_kinds("mupp")
    with pytest.raises(ValueError, match="--rates: '-4:-6' holds fewer than three"):
        parse_rates("-4:-6", 1e-3)
    assert parse_rates("", 2**-9) == [-13, -12, -11, -10, -9, -8, -7, -6, -5]
    path, _ = recipe(tmp_path, "chronos2")
    shown = CliRunner().invoke(app, ["lab", "mup", "coord-check", str(path), "--widths", "8,16", "--depths", "2,4"])
    assert "give --widths or --depths, not both" in str(shown.exception)
