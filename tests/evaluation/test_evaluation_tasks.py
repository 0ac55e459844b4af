"""tasks.yaml: paths, windows, and every error at once with its line. Seasons equal GluonTS's `get_seasonality` in every
spelling pandas has had."""

import numpy as np
import pytest

from foreloom.config.located import RecipeError
from foreloom.data.formats.writer import write_series
from foreloom.data.source import MemorySource, Series
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.plan import plan_windows
from foreloom.evaluation.tasks import EvaluationTask, read_tasks, season_length


def write(folder, text):
    file = folder / "tasks.yaml"
    file.write_text(text)
    return file


def test_paths_start_at_the_file_or_at_the_data_root(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "elsewhere" / "a").mkdir(parents=True)
    file = write(tmp_path, "tasks:\n  - {name: one, path: a, prediction_length: 3}\n")
    assert read_tasks(file)[0].paths == (tmp_path / "a",)
    assert read_tasks(file, tmp_path / "elsewhere")[0].paths == (tmp_path / "elsewhere" / "a",)


def test_several_paths_are_one_task(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    file = write(tmp_path, "tasks:\n  - {name: one, path: [a, b], prediction_length: 3, quantile_levels: [0.2, 0.5]}\n")
    (task,) = read_tasks(file)
    assert task.paths == (tmp_path / "a", tmp_path / "b")
    assert task.quantile_levels == (0.2, 0.5)


def test_all_errors_at_once_with_file_line_and_suggestion(tmp_path):
    (tmp_path / "nn5").mkdir()
    file = write(
        tmp_path,
        """tasks:
  - name: one
    path: nn5
    predicton_length: 3
  - name: two
    path: nn55
    prediction_length: 3
  - name: two
    path: nn5
    prediction_length: 0
    variates: splt
  - name: two
    path: nn5
    prediction_length: 5
    offset: -4
  - name: two
    path: nn5
    prediction_length: 5
""",
    )
    with pytest.raises(RecipeError) as caught:
        read_tasks(file)
    problems = caught.value.problems
    expected = {
        f"{file}:4: tasks.0.predicton_length: unknown setting. Did you mean prediction_length?",
        f"{file}:2: tasks.0.prediction_length: is required and not given.",
        f"{file}:6: no data at {tmp_path / 'nn55'}. Did you mean nn5?",
        f"{file}:10: tasks.2.prediction_length: expected a number of at least 1, got 0.",
        f"{file}:11: tasks.2.variates: expected 'split' or 'joint', got 'splt'. Did you mean split?",
        f"{file}:16: a task named 'two' is already listed above.",
    }
    assert expected <= set(problems)
    assert [p for p in problems if "window 1 would end after the series: offset -4" in p and f"{file}:12" in p]
    assert len(problems) == len(expected) + 1


@pytest.mark.parametrize("text", ["", "tasks: []", "- name: a", "tasks: 3"])
def test_a_file_without_a_list_of_tasks_is_refused(tmp_path, text):
    with pytest.raises(RecipeError, match="expected a list of tasks"):
        read_tasks(write(tmp_path, text))


def test_an_unknown_top_level_key_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"tasks.yaml:1: name: unknown key"):
        read_tasks(write(tmp_path, "name: x\ntasks:\n  - {name: one, path: a, prediction_length: 3}\n"))


def cuts(*lengths, first=None, **settings):
    """(series, number of the window, cut) of every window."""
    task = EvaluationTask(name="t", path="x", **settings)
    rolls = task.rolls(np.array(lengths), None if first is None else np.array(first))
    return list(zip(*(one.tolist() for one in rolls), strict=True))


def test_where_windows_begin():
    last = {"prediction_length": 4, "num_rolls": 3}
    assert cuts(20, **last) == [(0, 0, 8), (0, 1, 12), (0, 2, 16)]
    assert cuts(10, **last) == [(0, 1, 2), (0, 2, 6)], "the oldest has no past"
    assert cuts(100, prediction_length=24, offset=-96) == [(0, 0, 4)]
    assert cuts(20, **last, stride=1) == [(0, 0, 14), (0, 1, 15), (0, 2, 16)]
    assert cuts(10, 3, 20, 0, **last) == [*cuts(10, **last), *((2, *one[1:]) for one in cuts(20, **last))]
    assert cuts(20, 20, first=[19, 5], **last) == [(1, 0, 5), (1, 1, 9), (1, 2, 13)], "19 leaves one step to forecast"


@pytest.mark.parametrize("levels", [(0.1, 0.9), (0.5, 0.1), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_levels_ascend_and_hold_the_median(levels):
    with pytest.raises(ValueError, match="quantile_levels must ascend"):
        EvaluationTask(name="t", path="x", prediction_length=4, quantile_levels=levels)


def test_windows_may_begin_at_a_date(tmp_path):
    (tmp_path / "a").mkdir()
    text = "tasks:\n  - {name: one, path: a, prediction_length: 2, num_rolls: 3, first_cut: 2024-01-04, min_past: 5}\n"
    (task,) = read_tasks(write(tmp_path, text))
    days = {"start": np.datetime64("2024-01-01"), "timestamps": np.datetime64("2024-01-01") + np.arange(9)}
    plan = plan_windows(task, [MemorySource([Series("s", np.zeros((1, 9)), **days)])], 100, 100)
    assert (plan.roll_N.tolist(), plan.cut_N.tolist()) == ([1], [6]), "4 days are too few, 8 leave one day to forecast"
    with pytest.raises(
        RecipeError, match=r"tasks.yaml:2: tasks.0.first_cut: expected a date \(2024-01-31\), got 'soon'"
    ):
        read_tasks(write(tmp_path, text.replace("2024-01-04", "soon")))
    with pytest.raises(RecipeError, match="offset and first_cut both say where the first window begins"):
        read_tasks(write(tmp_path, text.replace("min_past: 5", "offset: -6")))


def test_a_date_needs_data_with_times(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"item_id": "x", "target": [1, 2, 3, 4]}')
    task = EvaluationTask(name="t", path=tmp_path / "a.jsonl", prediction_length=1, first_cut="2024-01-04")
    with pytest.raises(
        ValueError, match=r"task 't': its windows begin at 2024-01-04.*series 'x' .* does not state its"
    ):
        evaluate(SeasonalNaive(), [task])


def test_synthetic_data(tmp_path):
    write_series([Series("a", np.arange(60.0)[None])], tmp_path / "mine.arrow")
    file = write(
        tmp_path,
        """tasks:
  - {name: one, path: "synth://patterns?num_series=8&length=60", prediction_length: 5}
  - name: two
    path: [mine.arrow, "synth://tsmixup?sources=mine.arrow&length=20..50&num_series=3"]
    prediction_length: 5
""",
    )
    one, two = read_tasks(file)
    scores = evaluate(SeasonalNaive(), [one, two]).tasks
    assert [task.num_series for task in scores] == [8, 4]
    assert evaluate(SeasonalNaive(), [one]).tasks[0].scores == scores[0].scores


def test_wrong_synthetic_data(tmp_path):
    file = write(
        tmp_path,
        """tasks:
  - {name: one, path: "synth://pattern", prediction_length: 5}
  - {name: two, path: "synth://tsmixup?sources=mine.arrow", prediction_length: 5}
""",
    )
    with pytest.raises(RecipeError) as caught:
        read_tasks(file)
    first, second = caught.value.problems
    assert first.startswith(f"{file}:2: synth://pattern: there is no synthetic process 'pattern'")
    assert second == f"{file}:3: no data at {tmp_path}/mine.arrow."


def test_a_task_may_take_one_frequency_and_leave_series_out(tmp_path):
    steps = np.arange(30.0)[None]
    several = [
        Series(name, steps, np.datetime64("2020-01-01", "us"), freq)
        for name, freq in zip("abcd", ("D", "h", "D", None), strict=True)
    ]
    write_series(several, tmp_path / "mixed.arrow")

    def scored(**settings):
        task = EvaluationTask(name="t", path=tmp_path / "mixed.arrow", prediction_length=3, **settings)
        (scores,) = evaluate(SeasonalNaive(), [task]).tasks
        return scores.num_series, scores.num_skipped

    assert scored() == (4, 0)
    assert scored(freq="D") == (2, 0)
    assert scored(leave_out=("c",)) == (3, 0)
    assert scored(freq="none") == (1, 0)
    assert scored(freq="D", leave_out=("c",)) == (1, 0)
    with pytest.raises(ValueError, match="task 't': leave_out names series that its data do not hold: x, y"):
        scored(leave_out=("y", "a", "x"))
    with pytest.raises(
        ValueError, match="task 't': no series is left; freq is 'MS', its data state D, h, none, and 0 are"
    ):
        scored(freq="MS")


# gluonts 0.17.0 on pandas 2.3.3
GLUONTS = {
    "s": 3600, "30s": 120, "7s": 1, "S": 3600, "min": 1440, "5min": 288, "10min": 144, "15min": 96, "30min": 48,
    "45min": 32, "60min": 24, "90min": 16, "T": 1440, "15T": 96, "h": 24, "H": 24, "2h": 12, "6h": 4, "5h": 1,
    "24h": 1, "D": 1, "2D": 1, "7D": 1, "W": 1, "W-SUN": 1, "W-MON": 1, "2W": 1, "M": 12, "ME": 12, "MS": 12,
    "2MS": 6, "3ME": 4, "5MS": 1, "B": 5, "5B": 1, "2B": 1, "Q": 4, "QE": 4, "QS": 4, "Q-DEC": 4, "QE-DEC": 4,
    "QS-OCT": 4, "QS-JAN": 4, "2QS": 2, "Y": 1, "YE": 1, "YS": 1, "A": 1, "AS": 1, "YS-JAN": 1, "YE-DEC": 1,
    "A-DEC": 1, "AS-JAN": 1, "BME": 1, "BMS": 1, "BQE": 1, "BQS": 1, "BYE": 1, "BYS": 1, "SME": 1, "SMS": 1, "ms": 1,
    "us": 1, "ns": 1, "L": 1, "U": 1, "N": 1, "bh": 1, "C": 1, "1h30min": 16, "1D12h": 1, "BM": 1, "BQ": 1, "10YS": 1,
}  # fmt: skip


@pytest.mark.parametrize(("freq", "expected"), GLUONTS.items())
def test_equals_gluonts(freq, expected):
    assert season_length(freq) == expected


def test_agrees_with_the_installed_gluonts():
    seasonality = pytest.importorskip("gluonts.time_feature")
    to_offset = pytest.importorskip("pandas").tseries.frequencies.to_offset
    for freq in GLUONTS:
        try:
            to_offset(freq)
        except ValueError:
            continue  # an old spelling that this pandas has dropped
        assert season_length(freq) == seasonality.get_seasonality(freq), freq


@pytest.mark.parametrize("freq", ["", "hourly", "30 min", "D-", "1M2D", "-1h"])
def test_what_is_no_frequency_is_refused(freq):
    with pytest.raises(ValueError, match="is not a frequency"):
        season_length(freq)


def test_a_slip_gets_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean min"):
        season_length("30mins")
