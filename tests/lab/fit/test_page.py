"""Analyses and pages of whole studies, as the command line makes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from foreloom.cli import app
from foreloom.lab.fit.analysis import Options, analyse
from foreloom.lab.fit.page import Assumed, write_report


def write_study(folder, *, ratios=(10, 20, 40), A=30.0, rates=(0.01,)):
    """Runs of six sizes and some lengths each, which follow a law with half a percent of scatter."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for size in range(6):
        N = 10_000 * 2**size
        for ratio in ratios:
            for rate in rates:
                D = N * ratio * np.array([0.25, 0.5, 1.0])
                loss = 1.5 + A * N**-0.3 + 40 * D**-0.25 + 0.05 * np.log(rate * N / 1e3) ** 2 * (len(rates) > 1)
                loss = loss * np.exp(generator.normal(0, 0.005, 3))
                rows = [f"{k},{one},{6 * N * d},{d:.0f}" for k, (one, d) in enumerate(zip(loss, D, strict=True), 1)]
                text = "\n".join(["step,validation_loss,theoretical_flops,tokens", *rows])
                (folder / f"{16 * 2**size}d_{ratio}_lr_{rate}.csv").write_text(text)
    return folder


def test_a_study_that_allows_every_law(tmp_path):
    found = analyse(write_study(tmp_path / "study"), options=Options(num_bootstrap=30, hold_out="largest"))
    assert [one.name for one in found.approaches][-1] == "3, L(N, D)" and found.parametric is not None
    assert {one.law for one in found.predictions} == {"L(N, D)", "L(C)"}
    assert all(abs(one.error) < 0.1 and one.times_beyond > 1 for one in found.predictions)
    assert len(found.points) == 17 and any("1 held out: 512d_40_lr_0.01." in note for note in found.points.notes)
    assert {"delta 0.1", "E assumed 0", "1 of the highest loss dropped"} <= {one.change for one in found.sensitivities}
    assert any("approach 3 has 17 points for five constants" in doubt for doubt in found.doubts)


def test_sizes_that_move_together(tmp_path):
    found = analyse(write_study(tmp_path / "study", ratios=(20,)), options=Options(num_bootstrap=10))
    assert found.parametric is None and not found.approaches and found.power
    assert found.doubts[0].startswith("D / N is 20 in every run: N and D are one variable")


def test_sentences(tmp_path):
    folder = write_study(tmp_path / "study", ratios=(20,))
    with pytest.raises(ValueError, match="--hold-out: no run 'x'"):
        analyse(folder, options=Options(hold_out="x"))
    with pytest.raises(ValueError, match="16d_20_lr_0.01 does not say how many parameters are no embeddings"):
        analyse(folder, options=Options(non_embedding=True))
    for path in list(folder.iterdir())[2:]:
        path.unlink()
    one, _ = folder.iterdir()
    whole = one.read_text()
    head, *rows = [line.split(",") for line in whole.splitlines()]
    one.write_text("\n".join(",".join(line) for line in [head, *([row[0], "nan", *row[2:]] for row in rows)]))
    with pytest.raises(ValueError, match=rf"Run more. {one.stem} is left out: its loss is not finite"):
        analyse(folder)
    one.write_text(whole)
    with pytest.raises(ValueError, match="--hold-out largest: without the largest of 2 runs fewer than two budgets"):
        analyse(folder, options=Options(hold_out="largest"))
    next(folder.iterdir()).unlink()
    with pytest.raises(ValueError, match="all 1 runs have one size and length: a law needs several"):
        analyse(folder)
    with pytest.raises(ValueError, match="no such file or folder"):
        analyse(tmp_path / "nowhere")


def test_the_page_shows_what_there_is(tmp_path):
    first, second = write_study(tmp_path / "lstm", A=45.0), write_study(tmp_path / "transformer", ratios=(20,))
    sweep = write_study(tmp_path / "lstm_lr_sweep", ratios=(20,), rates=(0.01, 0.02, 0.05, 0.1))
    (first / "coordinates.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="200pt" height="9pt"/>')
    page = write_report([first, second], options=Options(num_bootstrap=5), assumed=Assumed(E=1.2))
    text = page.read_text()
    assert page == first / "report.html"
    for words in ("Curves: lstm", "Learning rates: lstm", "How large for its compute: lstm", "The largest, foretold",
                  "Frontiers", "More figures of the study", "N and D are one variable"):  # fmt: skip
        assert words in text, words
    written = {path.name for path in (first / "figures").iterdir()}
    for name in ("lstm-curves", "lstm-residuals", "lstm-learning-rates", "transformer-held-out", "frontiers"):
        assert {f"{name}.svg", f"{name}.png"} <= written, name
    assert "lstm needs" in text and "times the compute of transformer" in text
    assert "Learning rates side by side" not in text, "one of the two has a sweep"
    other = write_study(tmp_path / "other_lr_sweep", ratios=(20,), rates=(0.01, 0.02, 0.05))
    page = write_report([sweep, other], tmp_path / "two", Options(num_bootstrap=5))
    assert "Learning rates side by side" in page.read_text()
    assert (tmp_path / "two" / "figures" / "learning-rates.svg").is_file()
    more = text.partition("More figures of the study")[2]
    assert more.count("<img") == 1, "our own figures are not shown twice"


def test_the_smallest_of_all_studies_is_named(tmp_path):
    large, small = (write_study(tmp_path / name, ratios=(20,)) for name in ("large", "small"))
    for path in large.glob("16d*"):
        path.unlink()
    text = write_report([large, small], tmp_path / "out", Options(num_bootstrap=1)).read_text()
    assert "<b>10k to 320k</b>" in text


def test_the_command_line(tmp_path):
    folder = write_study(tmp_path / "study")
    told = CliRunner().invoke(app, ["lab", "fit", str(folder), "--bootstrap", "20", "--json", "--hold-out", "largest"])
    data = json.loads(told.output)
    assert data["parametric"]["num_starts"] == 54 and data["predictions"] and data["doubts"]
    told = CliRunner().invoke(app, ["lab", "frontiers", str(folder), "--window", "1e9:1e20"])
    assert told.exit_code == 0 and "Exponents by window and E" in told.output
    sweep = write_study(tmp_path / "sweep", ratios=(20,), rates=(0.01, 0.02, 0.05, 0.1))
    told = CliRunner().invoke(app, ["lab", "lr-fit", str(sweep)])
    assert "wrote" in told.output and json.loads((sweep / "fit.json").read_text())["law"]["over"] == "width"
    for args, sentence in (
        (["fit", str(folder), "--loss", "l2"], "--loss 'l2': expected huber or lad"),
        (["fit", str(folder), "--columns", "X=a"], "--columns 'X': expected N, D, C, L or run"),
        (["frontiers", str(folder), "--window", "1"], "--window '1': expected LOWEST:HIGHEST"),
        (["frontiers", str(folder), "--window", "1:2"], "0 points on its frontier within 1 to 2 FLOPs"),
    ):
        with pytest.raises(ValueError, match=sentence):
            CliRunner().invoke(app, ["lab", *args], catch_exceptions=False)
