"""Kinds and experts: a model that is known to specialise is seen to, the kinds come from where it is said."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from foreloom import cli
from foreloom.cli import report as verbs
from foreloom.data.formats.writer import write_series
from foreloom.data.source import Series
from foreloom.models.chronos2.family import FAMILY as CHRONOS2
from foreloom.models.chronos_t5.family import FAMILY as CHRONOS_T5
from foreloom.models.family import ExpertChoices
from foreloom.models.time_moe.family import FAMILY as TIME_MOE
from foreloom.report.experts import by_layer, expert_figure, expert_table, route


class BySign:
    """Sends a row by the sign of its last value, in two layers of four experts; the second layer sends all alike."""

    context_length = 64

    def __init__(self):
        self.seen = []

    def route(self, inputs, *, batch_size=256, context_length=None):
        rows = [x_L for x in inputs for x_L in x.context_RC[: x.num_targets]]
        self.seen = [len(row) for row in rows]
        pair = [[0, 1] if row[-1] > 0 else [2, 3] for row in rows]
        chosen_RLE = np.stack([np.eye(4, dtype=np.int64)[pair].sum(1), np.tile([1, 1, 0, 0], (len(rows), 1))], 1)
        return ExpertChoices(chosen_RLE, chosen_RLE / 2, 2)


def write(path, series):
    write_series(series, path)
    return str(path)


def signed(num_series=40, num_steps=100, **static):
    return [
        Series(
            f"s{i}",
            np.full((1, num_steps), 1.0 if i % 2 else -1.0) * np.arange(1, num_steps + 1),
            static={"kind": "up" if i % 2 else "down", "parity": str(i // 2 % 2)} | static,
        )
        for i in range(num_series)
    ]


def test_tables_say_here_what_they_say_elsewhere(tmp_path, tiny_time_moe, monkeypatch, capsys):
    """The options of every verb that reads tables: named columns, kinds in a static one; places are tried first."""
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    rows = [
        f"{shop},{day:02}.01.2024,{day * (1 if shop == 'a' else -1)},{shop}{shop}"
        for shop in "ab"
        for day in range(1, 29)
    ]
    (tmp_path / "sales.csv").write_text("\n".join(["shop,day,sold,town", *rows]))
    TIME_MOE.save(tiny_time_moe, tiny_time_moe.state_dict(), tmp_path / "moe")
    arguments = ["report", "experts", str(tmp_path / "moe"), str(tmp_path / "sales.csv"), "--kind", "town"]
    said = ["--id-column", "shop", "--timestamp-column", "day", "--target", "sold", "--static", "town"]
    cli.app([*arguments, *said, "--date-format", "%d.%m.%Y", "--format", "csv"], standalone_mode=False)
    assert [row["Kind"] for row in csv.DictReader(capsys.readouterr().out.splitlines())] == ["aa", "bb"]
    with pytest.raises(ValueError, match="--plot .*moe is a folder|must end in"):
        cli.app([*arguments, "--plot", str(tmp_path / "moe")], standalone_mode=False)


def test_planted_experts_are_found(tmp_path):
    data, forecaster = write(tmp_path / "data.arrow", signed()), BySign()
    report = route(forecaster, data, layer=1)
    assert forecaster.seen == [64] * 40
    down, up = report.shown.kinds
    np.testing.assert_array_equal(up.share_E, [0.5, 0.5, 0, 0])
    np.testing.assert_array_equal(down.share_E, [0, 0, 0.5, 0.5])
    assert (up.kind, up.num_series) == ("up", 20) and up.entropy == pytest.approx(0.5)
    assert report.shown.information_bits == pytest.approx(1) == report.shown.most_bits
    table = expert_table(report)
    assert table.rows[1][:6] == ["up", 20, 0.5, 0.5, 0.0, 0.0]
    assert "1.000 of at most 1.000 bits" in table.notes[1] and "Kinds go to different experts." in table.notes[1]
    assert "1.000 (" in table.notes[3] and ", 0.000 (0.000)" in table.notes[3]


def test_a_column_that_says_nothing_and_a_layer_that_sends_all_alike(tmp_path):
    data = write(tmp_path / "data.arrow", signed())
    by_parity = route(BySign(), data, kind="parity", layer=1)
    assert by_parity.shown.information_bits < 0.01
    assert "no specialisation is seen" in expert_table(by_parity).notes[1]
    last = route(BySign(), data)
    assert last.layer == 2 and last.shown.unused == (2, 3)
    assert "Never chosen: experts 2, 3." in expert_table(last).notes
    one_kind = route(BySign(), write(tmp_path / "one.arrow", signed(kind="up")))
    assert "one kind" in expert_table(one_kind).notes[1]


def test_without_a_column_kinds_are_patterns_of_the_whole_series(tmp_path):
    rng = np.random.default_rng(0)
    wave = np.sin(2 * np.pi * np.arange(200) / 24)
    series = [Series(f"s{i}", (wave + 0.1 * rng.normal(size=200))[None]) for i in range(5)]
    series += [Series(f"n{i}", rng.normal(size=(1, 200))) for i in range(3)]
    report = route(BySign(), write(tmp_path / "data.arrow", series), context_length=30)
    assert [(use.kind, use.num_series) for use in report.shown.kinds] == [("irregular", 3), ("seasonal", 5)]


def test_series_count_alike_whatever_their_variates(tmp_path):
    wide = np.concatenate([np.full((3, 70), 1.0), np.full((1, 70), -1.0), np.full((1, 70), np.nan)])
    series = [Series("wide", wide, static={"kind": "a"}), Series("flat", -np.ones((1, 70)), static={"kind": "a"})]
    report = route(BySign(), write(tmp_path / "data.arrow", series), layer=1)
    # A quarter of the wide one's four variates with values, and all of the other, go to the experts 2 and 3.
    np.testing.assert_allclose(report.shown.kinds[0].share_E, [0.1875, 0.1875, 0.3125, 0.3125])
    assert report.shown.total.num_series == 2


def test_steps_of_a_row_are_shares():
    chosen_RLE = np.array([[[6, 2, 0]], [[1, 0, 1]]])
    (found,) = by_layer(ExpertChoices(chosen_RLE, np.ones((2, 1, 3), np.float32) / 3, 1), [1, 1], ["a", "a"])
    np.testing.assert_allclose(found.total.share_E, [0.625, 0.125, 0.25])


def test_series_with_nothing_observed_are_left_out(tmp_path):
    empty = [Series("gone", np.where(np.arange(100) < 20, 1.0, np.nan)[None], static={"kind": "up", "parity": "0"})]
    report = route(BySign(), write(tmp_path / "data.arrow", signed(10) + empty))
    assert report.num_left_out == 1 and report.shown.total.num_series == 10
    assert expert_table(report).notes[-1].endswith("nothing observed in their context: 1.")
    with pytest.raises(ValueError, match=r"no series has a value among its newest 64 steps.*--context-length"):
        route(BySign(), write(tmp_path / "empty.arrow", empty))


def test_the_heatmap_holds_every_share(tmp_path):
    found = route(BySign(), write(tmp_path / "data.arrow", signed()), layer=1)
    figure = expert_figure(replace(found, name="a $model on " + "=200&m" * 20))
    figure.canvas.draw()
    title = figure._suptitle
    assert title.get_text().startswith("Choices of each kind by expert\na $model") and title.get_text().endswith("…")
    assert title.get_window_extent().x1 < figure.bbox.x1
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["0%", "0%", "50%", "50%", "50%", "50%", "0%", "0%", *["25%"] * 4]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["down (20)", "up (20)", "all (40)"]


@pytest.mark.parametrize(("family", "fixture"), [(CHRONOS_T5, "tiny_chronos_t5"), (TIME_MOE, "tiny_time_moe")])
def test_from_a_model_s_folder_to_files(family, fixture, request, tmp_path):
    model = request.getfixturevalue(fixture)
    family.save(model, model.state_dict(), tmp_path / "model")
    data = write(tmp_path / "data.arrow", signed(12))
    outputs = {"out": tmp_path / "experts.csv", "plot": tmp_path / "experts.png"}
    verbs.experts(str(tmp_path / "model"), data, device="cpu", **outputs)
    rows = list(csv.DictReader(outputs["out"].open()))
    assert [row["Kind"] for row in rows] == ["down", "up"]
    for row in rows:
        assert sum(float(row[f"Expert {i}"]) for i in range(4)) == pytest.approx(1)
        assert sum(float(row[f"Mean p {i}"]) for i in range(4)) == pytest.approx(1)
    assert outputs["plot"].stat().st_size > 1000


def test_bad_input_gets_a_sentence(tiny_chronos2, tiny_chronos_t5, tmp_path):
    CHRONOS2.save(tiny_chronos2, tiny_chronos2.state_dict(), tmp_path / "chronos2")
    CHRONOS_T5.save(tiny_chronos_t5, tiny_chronos_t5.state_dict(), tmp_path / "experts")
    data = write(tmp_path / "data.arrow", signed())
    with pytest.raises(ValueError, match="chronos2 is of a family without experts"):
        verbs.experts(str(tmp_path / "chronos2"), data, device="cpu")
    with pytest.raises(ValueError, match=r"--kind colour: 40 of 40 series .*Static columns: kind, parity"):
        verbs.experts(str(tmp_path / "experts"), data, kind="colour", device="cpu")
    with pytest.raises(ValueError, match=r"e.gif: a picture's name must end in .svg, .png or .pdf"):
        verbs.experts(str(tmp_path / "experts"), data, plot="e.gif", device="cpu")
    with pytest.raises(ValueError, match="--layer 2: the model has experts in 1 layer, numbered"):
        verbs.experts(str(tmp_path / "experts"), data, layer=2, device="cpu")
    with pytest.raises(ValueError, match="context_length is 1000; this model takes 1 to 96"):
        verbs.experts(str(tmp_path / "experts"), data, context_length=1000, device="cpu")
