"""Boards: the published order, and one's own model among the published ones."""

import pytest

from foreloom.evaluation import suites
from foreloom.evaluation.published import published_rows
from foreloom.report.leaderboard import leaderboard
from foreloom.report.scores import write_rows
from foreloom.report.tables import print_or_write


def copies(board, model, name, factor=1.0, tasks=None):
    """The published results of a model under another name, each error times a factor."""
    return [
        {k: v * factor if isinstance(v, float) else v for k, v in row.items() if k != "trained_on"} | {"model": name}
        for row in published_rows(board)
        if row["model"] == model and (tasks is None or row["task"] in tasks)
    ]


def column(board, name):
    index = [c.name for c in board.columns].index(name)
    return {row[0]: row[index] for row in board.rows}


def test_chronos_board():
    board = leaderboard("chronos-zero-shot")
    assert [row[0] for row in board.rows][:2] == ["chronos-bolt-base", "chronos-bolt-small"]
    assert column(board, "WQL relative")["chronos-bolt-base"] == pytest.approx(0.6241, abs=5e-5)
    assert column(board, "MASE relative")["chronos-bolt-base"] == pytest.approx(0.7915, abs=5e-5)
    by_mase = leaderboard("chronos-zero-shot", metric="mase")
    assert [row[0] for row in by_mase.rows][:2] == ["chronos-bolt-base", "chronos-t5-base"]


def test_fev_board():
    board = leaderboard("fev-bench")
    assert [c.name for c in board.columns][:7] == [
        "Model",
        "SQL skill %",
        "SQL skill % from",
        "SQL skill % to",
        "SQL wins %",
        "SQL wins % from",
        "SQL wins % to",
    ]
    chronos_2 = board.rows[0]
    assert chronos_2[0] == "Chronos-2"
    assert chronos_2[1:4] == [pytest.approx(p, abs=0.05) for p in (47.3, 42.7, 52.1)]
    assert column(board, "MASE skill %")["TiRex"] == pytest.approx(30.0, abs=0.05)
    assert len(leaderboard("fev-bench-mini").rows) == 9


def test_gift_board():
    board = leaderboard("gift-eval")
    assert board.rows[0][0] == "Chronos-2"
    assert column(board, "WQL relative")["Chronos-2"] == pytest.approx(0.485, abs=5e-4)
    ranks = list(column(board, "WQL mean rank").values())
    assert ranks == sorted(ranks)
    assert sum(ranks) == pytest.approx(8 * 9 / 2)


@pytest.mark.parametrize(
    ("suite", "board", "rival", "name"),
    [
        ("chronos-in-domain", "chronos", "chronos-bolt-base", "WQL relative"),
        ("fev-bench-mini", "fev-bench", "Chronos-2", "SQL skill %"),
        ("gift-eval", "gift-eval", "Chronos-2", "WQL relative"),
    ],
)
def test_ones_own_model_stands_among_the_published_and_is_marked(tmp_path, suite, board, rival, name):
    file = tmp_path / "mine.csv"
    write_rows(copies(board, rival, "mine", 0.9) + copies(board, "seasonal-naive", "seasonal-naive"), file)
    found = leaderboard(suite, [file])
    assert found.rows[0][0] == "mine (yours)"
    assert column(found, name)[rival] == pytest.approx(column(leaderboard(suite), name)[rival])
    assert "seasonal-naive (yours)" not in column(found, name)
    assert len(found.notes) == 1


def test_a_board_over_the_tasks_that_are_there(tmp_path):
    file = tmp_path / "mine.csv"
    write_rows(copies("chronos", "chronos-t5-tiny", "mine", tasks=["nn5", "ETTh", "m4_hourly"]), file)
    board = leaderboard("chronos-zero-shot", [file])
    relative = column(board, "WQL relative")
    assert relative["mine (yours)"] == pytest.approx(relative["chronos-t5-tiny"])
    assert "Over the 2 of 27 tasks that your results have: ETTh, nn5." in board.notes
    with pytest.raises(ValueError, match=r"mine has no score of a task of gift-eval: '\w+' is none of its tasks"):
        leaderboard("gift-eval", [file])


def test_tasks_that_a_model_was_trained_on_count_as_on_the_board_and_files_of_the_boards_are_read(tmp_path):
    rows = [row for row in published_rows("fev-bench") if row["model"] in ("TimesFM-2.5", "seasonal-naive")]
    theirs = [
        {"model_name": row["model"].replace("seasonal-naive", "Seasonal Naive"), "task_name": row["task"]}
        | {"SQL": row["SQL"], "MASE": row["MASE"], "WAPE": row["WAPE"], "WQL": row["WQL"], "test_error": row["SQL"]}
        | {"trained_on_this_dataset": bool(row["trained_on"])}
        for row in rows
    ]
    plain = [{name: value for name, value in row.items() if name != "trained_on"} for row in rows]
    skills = {}
    for name, these in (("ours", rows), ("fev", theirs), ("silent", plain)):
        write_rows(these, tmp_path / f"{name}.csv")
        board = leaderboard("fev-bench", [tmp_path / f"{name}.csv"])
        skills[name] = column(board, "SQL skill %")["TimesFM-2.5 (yours)"]
    published = column(leaderboard("fev-bench"), "SQL skill %")["TimesFM-2.5"]
    assert skills["ours"] == skills["fev"] == pytest.approx(published) and skills["silent"] > published + 0.1
    (tmp_path / "fev.csv").write_text((tmp_path / "fev.csv").read_text().replace("True", "perhaps"))
    with pytest.raises(ValueError, match=r"fev.csv:\d+: trained_on_this_dataset is 'perhaps'; write 1 where"):
        leaderboard("fev-bench", [tmp_path / "fev.csv"])

    gift = [
        {"dataset": row["task"], "model": row["model"].replace("seasonal-naive", "Seasonal_Naive")}
        | {"eval_metrics/MASE[0.5]": row["MASE"], "eval_metrics/mean_weighted_sum_quantile_loss": row["WQL"]}
        for row in published_rows("gift-eval")
        if row["model"] in ("TiRex", "seasonal-naive")
    ]
    write_rows(gift, tmp_path / "gift.csv")
    board = leaderboard("gift-eval", [tmp_path / "gift.csv"])
    for name in ("WQL relative", "MASE relative"):
        assert column(board, name)["TiRex (yours)"] == column(board, name)["TiRex"]
    assert len(board.notes) == 1 and len(board.rows) == 9


def test_another_seasonal_naive_is_said(tmp_path):
    file = tmp_path / "mine.csv"
    write_rows(
        copies("chronos", "chronos-t5-tiny", "mine", tasks=["nn5"])
        + copies("chronos", "seasonal-naive", "seasonal-naive", 1.2, tasks=["nn5"]),
        file,
    )
    notes = leaderboard("chronos-lite", [file]).notes
    assert any(note.startswith("Your seasonal-naive has MASE 1.55 on nn5, the published one 1.292") for note in notes)


@pytest.mark.parametrize("suite", ["chronos-zero-shot", "fev-bench", "gift-eval"])
def test_results_without_a_task_in_common_make_no_board(tmp_path, suite):
    first, second, *_ = [task.name for task in suites.load(suite).tasks]
    for name, task in (("one", first), ("two", second)):
        write_rows([{"model": name, "task": task, "WQL": 0.1, "MASE": 1.0, "SQL": 0.1, "WAPE": 0.1}], tmp_path / name)
    with pytest.raises(ValueError, match=f"{suite}: no task has .* of one, two all together"):
        leaderboard(suite, [tmp_path / "one", tmp_path / "two"])


def test_what_has_no_board(capsys):
    with pytest.raises(ValueError, match="ltsf: no results per task are published"):
        leaderboard("ltsf")
    with pytest.raises(ValueError, match=r"gift-eval: no metric 'MSE'.* The board has WQL, MASE"):
        leaderboard("gift-eval", metric="MSE")
    with pytest.raises(ValueError, match=r"fev: no such suite"):
        leaderboard("fev")
    print_or_write(leaderboard("chronos-lite"), "markdown", None)
    assert capsys.readouterr().out.startswith("### Chronos lite: WQL\n\n| Model | WQL relative | MASE relative |\n")


def test_every_board_has_all_tasks_of_its_suite():
    for name in suites.names():
        suite = suites.load(name)
        if suite.protocol == "windows":
            board = {"relative": "chronos", "skill": "fev-bench", "rank": "gift-eval"}[suite.ranking]
            base = {row["task"] for row in published_rows(board) if row["model"] == "seasonal-naive"}
            assert {task.name for task in suite.tasks} <= base
