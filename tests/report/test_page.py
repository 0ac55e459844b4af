"""report.html is self-contained, escapes everything and shows what a run has left so far."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from foreloom.evaluation.benchmark import write_record
from foreloom.monitoring.meters import Meters
from foreloom.monitoring.monitor import Monitor, MonitoringConfig
from foreloom.monitoring.record import BenchmarkRecord, StepRecord, ValidationRecord
from foreloom.report.curves import training_figures
from foreloom.report.figures import curve_figure, panel_grid
from foreloom.report.html import width_points
from foreloom.report.page import write_page
from foreloom.report.run_folder import MOST_PICTURES, read_run_folder
from foreloom.report.style import save_figure

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects text, sections and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.alts += [value for name, value in attrs if name == "alt"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def run_for(run_dir, steps: int, *, finish: bool) -> None:
    monitor = Monitor(run_dir, 40, MonitoringConfig(log_steps=10, trackers=("none",)))
    monitor.start({"Model": {"family": "chronos2", "parameters": 3_118_496}, "Data": {"sources": ["<b>a</b> & c"]}})
    for step in range(10, steps + 1, 10):
        loss = float("nan") if step == 20 else 10.0 - step / 10
        monitor.log(
            StepRecord(
                step=step,
                loss=loss,
                grad_norm=1.0,
                learning_rate=1e-4,
                num_rows=step * 16,
                rows_per_step=16.0,
                steps_per_second=2.0,
                seconds=step / 2,
            )
        )
    monitor.warn("data", "Series <script>alert(1)</script> is constant.")
    if finish:
        monitor.finish({})
    monitor.close()


def test_a_whole_run(tmp_path):
    run_dir = tmp_path / "my <run>"
    run_for(run_dir, 40, finish=True)
    (run_dir / "recipe.yaml").write_text("model:\n  family: chronos2  # <i>\n")
    for step in (20, 40):
        folder = run_dir / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(
            json.dumps({"step": step, "num_rows": step * 16, "scores": {"wql": 0.25}})
        )
    (run_dir / "checkpoints" / "final").symlink_to("step-00000040")
    (run_dir / "evaluation").mkdir()
    (run_dir / "evaluation" / "held_out.csv").write_text(
        "task,model,WQL,MASE\nbirths,ours,0.02,0.5\nbirths,seasonal-naive,0.04,1.0\n"
        "<u>sun</u>,ours,0.3,\n<u>sun</u>,seasonal-naive,0.2,1.0\n"
    )
    (run_dir / "evaluation" / "windows.csv").write_text("item,error\na,1\n")
    save_figure(curve_figure("births", [1, 2, 3], [1.0, 2.0, 3.0]), run_dir / "forecast.svg")
    save_figure(curve_figure("overview", [1, 2, 3], [1.0, 2.0, 3.0]), run_dir / "evaluation" / "held_out.svg")
    save_figure(curve_figure("births", [1, 2, 3], [1.0, 2.0, 3.0]), run_dir / "forecast.png")

    path = write_page(run_dir)
    assert path == run_dir / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.headings == [
        "Training",
        "Evaluation",
        "Forecasts",
        "Set-up",
        "What happened",
        "Checkpoints",
        "How to reproduce",
        "Environment",
    ]
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert page.alts == ["Loss", "Learning rate", "Gradient norm", "Speed", "Forecast"]
    assert not page.tags & {"script", "link", "i", "u"}
    for words in (
        "my <run>",
        "Finished at step 40 of 40.",
        "9.00 → 6.00",
        "3,118,496",
        "<b>a</b> & c",
        "<u>sun</u>",
        "0.5000",
        "Series <script>alert(1)</script> is constant.",
        "checkpoints/step-00000040",
        "family: chronos2  # <i>",
    ):
        assert words in page.text
    assert "WQL: the error of" in page.text and "MASE: the error of" in page.text
    assert "checkpoints/final" not in page.text
    assert "@import" not in path.read_text(encoding="utf-8")


def test_validation_benchmarks_health_and_time_are_shown(tmp_path):
    monitor = Monitor(tmp_path, 40, MonitoringConfig(log_steps=10, health_steps=20, trackers=("none",)))
    monitor.start({})
    for step in (10, 20, 30, 40):
        spent = {"forward_backward": 4.0, "data_wait": step / 10, "checkpoint": 0.0}
        record = StepRecord(
            step=step, loss=5.0, grad_norm=1.0, learning_rate=1e-4, num_rows=step, rows_per_step=1.0,
            steps_per_second=2.0, seconds=step / 2, seconds_by_part=spent, figures={"expert_entropy": 0.9},
        )  # fmt: skip
        monitor.log(record)
        for loss in (9.0, 4.0):  # a resumed run validates anew
            monitor.log_validation(ValidationRecord(step, loss, 4.0, step, 0, 0))
        scores = {"wql": 0.2, "mase": 1.5, "composite": 0.7}
        benchmark = BenchmarkRecord(
            step, "lite", scores, {"<b>m4</b>": {"wql": 0.2, "mase": 1.5}}, "wql", 0.2, 10, None, 3.0, 0.02
        )
        write_record(tmp_path, benchmark)
        monitor.log_benchmark(benchmark)
        monitor.report_health()
    monitor.close()
    text = write_page(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert page.headings[:4] == ["Training", "Benchmark during training", "Health", "What happened"]
    alts = ["Loss", "Learning rate", "Gradient norm", "Speed", "Expert entropy", "Time"]
    assert page.alts == [*alts, "Benchmark WQL", "Benchmark MASE"]
    for words in ("Lite tier after step 40", "<b>m4</b>", "Best wql so far: 0.2 at step 10.", "2.0% of the time"):
        assert words in page.text
    assert "Health at step 40 of 40" in page.text and "Health at step 20 of 40" not in page.text
    assert not set(page.text) & set("▒░"), "bars are drawn, not written"
    assert '<span class="bar"><i style="width:100%"></i><i style="width:0%"></i></span> 100.0%' in text
    run = read_run_folder(tmp_path)
    assert [event["loss"] for event in run.newest_events("validation")] == [4.0] * 4
    time = training_figures(run)["Time"]
    names = [text.get_text() for text in time.legends[0].get_texts()]
    assert names == ["forward backward", "data wait"], "the largest first, what took no time left out"
    heights = [band.get_paths()[0].vertices[:, 1].max() for band in time.axes[0].collections]
    assert heights == pytest.approx([80.0, 100.0])


def test_the_overview_stands_for_many_pictures(tmp_path):
    run_for(tmp_path, 10, finish=False)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "suite.csv").write_text("task,model,WQL,MASE\na,ours,0.02,0.5\n")
    names = [f"suite-{i}.svg" for i in range(MOST_PICTURES)]
    for name in ("suite.svg", *names):
        save_figure(curve_figure(name, [1, 2], [1.0, 2.0]), tmp_path / "evaluation" / name)
    assert [path.name for path in read_run_folder(tmp_path).pictures] == names
    save_figure(curve_figure("one more", [1, 2], [1.0, 2.0]), tmp_path / "evaluation" / "suite-more.svg")
    assert [path.name for path in read_run_folder(tmp_path).pictures] == ["suite.svg"]


def test_a_picture_is_shown_as_wide_as_it_was_drawn(tmp_path):
    figures = {"one": panel_grid(1, 1)[0], "two": panel_grid(1, 2)[0]}
    for name, figure in figures.items():
        drawn = [width_points(save_figure(figure, tmp_path / f"{name}.{kind}").read_bytes()) for kind in ("svg", "png")]
        assert drawn == pytest.approx([72 * figure.get_figwidth()] * 2, abs=0.1)
    assert width_points(b"\x89PNG\r\n\x1a\n" + bytes(40)) is None
    run_for(tmp_path, 10, finish=False)
    (tmp_path / "two.svg").unlink()  # its PNG is shown
    text = write_page(tmp_path).read_text(encoding="utf-8")
    assert 'alt="One" style="--most:302pt"></figure>' in text and text.count('<figure class="card wide scroll">') == 1
    assert 'alt="Two" style="--most:605pt"' in text


def test_a_run_that_has_only_begun(tmp_path):
    run_for(tmp_path, 0, finish=False)
    page = Page(write_page(tmp_path).read_text(encoding="utf-8"))
    assert "Training" not in page.headings
    assert "Not finished: the newest log line is that of step 0." in page.text
    run_for(tmp_path, 10, finish=False)
    assert "Training" in Page(write_page(tmp_path).read_text(encoding="utf-8")).headings


def test_folders_that_are_no_run_or_are_damaged_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no metrics\.jsonl: give the folder of a run"):
        write_page(tmp_path)
    run_for(tmp_path, 10, finish=False)
    (tmp_path / "environment.json").write_text("{")
    with pytest.raises(ValueError, match=r"environment\.json is damaged"):
        write_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_run_of_another_version_is_told(tmp_path):
    run_for(tmp_path, 10, finish=True)
    metrics = tmp_path / "metrics.jsonl"
    now = metrics.read_text(encoding="utf-8")
    health = {"kind": "health", "level": "info", "sentence": "", "step": 10, "time": "2026-11-26", "total_steps": 40}
    state = Meters().state_dict() | {"last": {"step": 10, "num_samples": 160}}
    for old, sentence in (
        (now.replace('"num_rows"', '"num_samples"'), "step 10 has no 'num_rows'"),
        (f"{now}{json.dumps(health | {'meters': state})}\n", "health reports hold something else"),
    ):
        metrics.write_text(old, encoding="utf-8")
        with pytest.raises(ValueError, match=f"metrics.jsonl was written by another version of foreloom: .*{sentence}"):
            write_page(tmp_path)
