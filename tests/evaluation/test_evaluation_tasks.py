"""tasks.yaml: paths, windows, and every error at once with its line."""

import numpy as np
import pytest

from foreloom.config.located import RecipeError
from foreloom.data.formats.writer import write_series
from foreloom.data.source import MemorySource, Series
from foreloom.evaluation.baselines import SeasonalNaive
from foreloom.evaluation.evaluate import evaluate
from foreloom.evaluation.plan import plan_windows
from foreloom.evaluation.tasks import EvaluationTask, read_tasks


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
