"""The shipped suites are the published lists, entry by entry; files with errors show all of them."""

from datetime import datetime

import pytest
import yaml

from foreloom.config.located import RecipeError
from foreloom.evaluation import suites
from foreloom.evaluation.metrics import METRICS

NUM_TASKS = {
    "chronos-lite": 5,
    "chronos-in-domain": 15,
    "chronos-zero-shot": 27,
    "chronos-extended": 15,
    "chronos-full": 42,
    "gift-eval": 97,
    "fev-bench": 100,
    "fev-bench-mini": 20,
    "ltsf": 36,
}


def listed(shared, name):
    return yaml.safe_load((shared / "benchmarks" / f"{name}.yaml").read_text())


def test_all_suites_load_and_name_every_task_once():
    assert {name: len(suites.load(name).tasks) for name in suites.names()} == NUM_TASKS
    for name in suites.names():
        tasks = suites.load(name).tasks
        assert len({task.name for task in tasks}) == len(tasks)
        assert all(task.repo and task.config for task in tasks)


@pytest.mark.parametrize(
    ("name", "list_name"),
    [
        ("chronos-lite", "chronos-lite"),
        ("chronos-in-domain", "chronos-i"),
        ("chronos-zero-shot", "chronos-ii"),
        ("chronos-extended", "chronos-extended"),
        ("chronos-full", "chronos-full"),
    ],
)
def test_chronos(shared, name, list_name):
    suite, facts = suites.load(name), listed(shared, list_name)
    assert list(suite.metrics) == facts["metrics"]
    assert [task.name for task in suite.tasks] == [fact["name"] for fact in facts["datasets"]]
    for task, fact in zip(suite.tasks, facts["datasets"], strict=True):
        offset = task.offset or -task.prediction_length * task.num_rolls
        assert (task.repo, task.config, task.season_length, offset, task.prediction_length, task.num_rolls) == (
            fact["hf_repo"],
            fact["hf_config"],
            fact["season"],
            fact["offset"],
            fact["prediction_length"],
            fact["num_rolls"],
        )


def test_gift_eval(shared):
    suite, facts = suites.load("gift-eval"), listed(shared, "gift-eval")
    for task, fact in zip(suite.tasks, facts["configs"], strict=True):
        assert (task.name, task.repo, task.config, task.prediction_length, task.season_length) == (
            fact["name"],
            facts["hf_repo"],
            fact["disk_path"],
            fact["prediction_length"],
            fact["season"],
        )
        assert task.num_rolls == (1 if fact["name"].startswith("m4_") else 0)


def test_fev_bench(shared):
    facts = yaml.safe_load((shared / "published" / "fev_bench" / "tasks.yaml").read_text())["tasks"]
    for task, fact in zip(suites.load("fev-bench").tasks, facts, strict=True):
        target = fact.get("target", [])
        assert task.name == fact.get("task_name", fact["dataset_config"])
        assert (task.repo, task.config) == (fact["dataset_path"], fact["dataset_config"])
        assert (task.prediction_length, task.num_rolls) == (fact["horizon"], fact["num_windows"])
        assert (task.season_length, task.min_past) == (fact["seasonality"], fact.get("min_context_length", 1))
        first_cut = fact.get("initial_cutoff")
        assert task.first_cut == (first_cut and datetime.fromisoformat(first_cut))
        assert list(task.targets) == ([target] if isinstance(target, str) else target)
        assert list(task.future) == fact.get("known_dynamic_columns", [])
        assert list(task.past) == fact.get("past_dynamic_columns", [])
        assert list(task.static) == fact.get("static_columns", [])
    mini = yaml.safe_load((shared / "published" / "fev_bench" / "tasks_mini.yaml").read_text())["tasks"]
    names = {fact.get("task_name", fact["dataset_config"]) for fact in mini}
    assert {task.name for task in suites.load("fev-bench-mini").tasks} == names


def test_ltsf(shared):
    facts = listed(shared, "ltsf")
    tasks = iter(suites.load("ltsf").tasks)
    for fact in facts["datasets"]:
        rows = fact["rows"]
        if "split" in fact:
            begin, end = rows - int(0.2 * rows), rows
        else:
            begin, end = fact["val_end"], fact["test_end"]
        for horizon in fact["horizons"]:
            task = next(tasks)
            assert (task.name, task.config.rpartition("/")[2]) == (f"{fact['name']}-{horizon}", fact["file"])
            assert (task.prediction_length, task.season_length, task.stride) == (horizon, fact["season"], 1)
            assert rows + task.offset == begin
            assert rows + task.offset + task.num_rolls - 1 + horizon == end
    assert next(tasks, None) is None


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(RecipeError, match=r"chronos-zeroshot: no such suite. Did you mean chronos-zero-shot\? The"):
        suites.load("chronos-zeroshot")


def test_all_errors_of_a_file_at_once(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        """title: mine
metrics: [WQL, MASSE]
tasks:
- {name: a, prediction_length: 0}
- {name: b, predicton_length: 3}
- {name: a, prediction_length: 3, offset: 4}
"""
    )
    with pytest.raises(RecipeError) as caught:
        suites.load(file)
    assert set(caught.value.problems) == {
        f"{file}:4: tasks.0.prediction_length: expected a number of at least 1, got 0.",
        f"{file}:5: tasks.1.predicton_length: unknown setting. Did you mean prediction_length?",
        f"{file}:5: tasks.1.prediction_length: is required and not given.",
        f"{file}:6: tasks.2.offset: expected a number of at most 0, got 4.",
        f"{file}:6: a task named 'a' is already listed above.",
        f"{file}:2: metrics.1: no metric 'MASSE'. Did you mean MASE? They are {', '.join(METRICS)}.",
    }


def test_a_part_names_tasks_of_another_suite(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("title: mine\npart_of: chronos-full\ntasks: [nn5, ETTh]\n")
    suite = suites.load(file)
    assert (suite.name, suite.title, [task.name for task in suite.tasks]) == ("mine", "mine", ["nn5", "ETTh"])
    file.write_text("titel: mine\npart_of: chronos-full\ntasks:\n- nn5\n- monash_m3_yearl\n- nn5\n")
    with pytest.raises(RecipeError) as caught:
        suites.load(file)
    assert caught.value.problems == [
        f"{file}:1: titel: unknown setting; a part has title, part_of and tasks.",
        f"{file}:5: tasks.1: chronos-full has no task 'monash_m3_yearl'. Did you mean monash_m3_yearly?",
        f"{file}:6: a task named 'nn5' is already listed above.",
    ]
    file.write_text("title: mine\npart_of: chronos-ful\ntasks: [nn5]\n")
    with pytest.raises(
        ValueError, match=r"mine.yaml:2: part_of: chronos-ful: no such suite. Did you mean chronos-full"
    ):
        suites.load(file)


@pytest.mark.parametrize("text", ["", "tasks: []", "- a", "title: x"])
def test_a_file_without_tasks_is_no_suite(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match="mine.yaml:1: expected a suite"):
        suites.load(file)
