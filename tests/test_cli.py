"""The command line as users meet it: it answers at once, and bad input ends in a sentence and exit code 2."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from foreloom import __version__, cli

ROOT = Path(__file__).resolve().parents[1]
BIRTHS = str(ROOT / "examples" / "births.csv")
HEAVY = ("torch", "pandas", "pyarrow", "matplotlib", "transformers", "numpy", "scipy")


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def foreloom(monkeypatch, capsys, tmp_path):
    """`foreloom(*arguments)` in this process and an empty folder, as the installed command runs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("FORELOOM_TRACEBACK", raising=False)

    def call(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["foreloom", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return Answer(left.value.code or 0, out, err)

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A run folder: two steps of a tiny Chronos-2, context 64, horizon 16."""
    from foreloom import run

    out = tmp_path_factory.mktemp("runs") / "tiny"
    shape = ["model.num_layers=1", "model.d_model=32", "model.d_ff=32", "model.num_heads=2", "model.d_kv=16"]
    data = ["data.context_length=64", "data.prediction_length=16", "data.min_past=16"]
    steps = ["training.steps=2", "training.batch_size=2", "monitoring.trackers=[none]", "training.device=cpu"]
    run.train("chronos2-test", [*shape, *data, *steps], out=out)
    return out


def refused(answer: Answer, *words: str) -> None:
    """Exit code 2, every one of `words` on stderr, nothing on stdout and no traceback."""
    assert answer.code == 2, answer
    assert "Traceback" not in answer.err and "Traceback" not in answer.out
    for word in words:
        assert word in answer.err, f"{word!r} is not in {answer.err!r}"
    assert len(answer.err) < 3000
    assert answer.out == ""


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


@pytest.mark.parametrize("command", [["-c", "import foreloom"], ["-m", "foreloom", "--help"]])
def test_nothing_heavy_is_imported_before_it_is_needed(command):
    timed = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, timeout=30)
    assert timed.returncode == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in timed.stderr.splitlines()}
    assert "foreloom" in imported or "foreloom" in timed.stdout
    assert imported.isdisjoint(HEAVY)


def test_help_lists_the_verbs(foreloom):
    answer = foreloom("--help")
    assert answer.code == 0
    for verb in ("train", "show", "evaluate", "forecast", "report", "lab", "data"):
        assert f" {verb} " in answer.out


def commands(group, *path: str):
    """Every verb below a group, with the words that call it."""
    for name, one in group.commands.items():
        yield from commands(one, *path, name) if hasattr(one, "commands") else [((*path, name), one)]


def test_every_help_has_an_example_that_parses(foreloom):
    found = dict(commands(typer.main.get_command(cli.app)))
    assert len(found) > 12
    for path, command in found.items():
        calls, _, words = (command.epilog or "").removeprefix("Example: ").partition(" ")
        assert calls == "foreloom", path
        words = shlex.split(words)
        own = (
            words[len(path) :] if tuple(words[: len(path)]) == path else words[1:]
        )  # `report RUN` for `report page RUN`
        assert command.make_context(path[-1], own).args == []
        shown = foreloom(*path, "-h").out
        assert "Example: foreloom" in shown and shown == foreloom(*path, "--help").out


def test_the_version_and_completion(foreloom):
    assert foreloom("--version").out == f"foreloom {version('foreloom')}\n" == f"foreloom {__version__}\n"
    assert "--install-completion" in foreloom("-h").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "time-moe-finetune", "-d", "x.csv"], ["No such option: -d", "data.sources.0.path=PATH"]),
        (["train", "time-moe-finetune", "--stride=1"], ["No such option: --stride", "data.stride=N"]),
        (["train", "--model-id", "a/b"], ["Here: model.pretrained=FOLDER-OR-ID"]),
        (["evaluate", "-m", "a/b", "-d", "ETTh1.csv"], ["No such option: -m", "foreloom evaluate MODEL"]),
        (["evaluate", "a/b", "-d", "ETTh1.csv"], ["No such option: -d. Here: --data FILE"]),
        (["forecast", "small", "x.csv", "--prediction_length", "7"], ["No such option", "Here: --horizon N"]),
        (["backtest", "small", "x.csv", "--n-windows=3"], ["No such option", "Here: --windows N"]),
        (["train", "chronos2-test", "--train.max_steps", "3"], ["No such option", "Here: training.steps=N"]),
        (["trian", "chronos2-test"], ["No such command 'trian'", "'train'"]),
        (["train", "chronos2-test", "--stepz", "3"], ["No such option", "--stepz"]),
        (["train"], ["Missing argument", "recipe"]),
        (["forecast", "m", "d.csv", "--horizon", "0"], ["--horizon", "greater than or equal to 1"]),
        (["forecast", "m", "d.csv"], ["Missing option", "--horizon"]),
        (["data", "inspekt", "x"], ["No such command 'inspekt'", "'inspect'"]),
        (["show", "quickstart", "--devices", "4"], ["--devices has no effect without --from-tsm"]),
        (["lab", "gen", "scaling", "--arch", "lstm"], ["--arch goes with --table or --match-params"]),
        (["plan", "chronos2-small", "--simulate", "2", "--mfu", "1"], ["--mfu: without effect beside --simulate"]),
        (["plan", "chronos2-small", "--scale", "1..4", "--price", "2"], ["--price: without effect beside --scale"]),
    ],
)
def test_usage(foreloom, arguments, words):
    answer = foreloom(*arguments)
    refused(answer._replace(err=answer.err.replace("\n", " ")), *words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["training.stepz=3"], ["command line: training.stepz: unknown setting. Did you mean steps?"]),
        (["trainig.steps=3"], ["command line: trainig: unknown section. Did you mean training?"]),
        (["training.steps=many"], ["training.steps: expected a whole number, got 'many'."]),
        (["training.steps"], ["write an override as section.setting=value"]),
        (["model.size=huge"], ["model.size: expected 'test', 'small' or 'base', got 'huge'."]),
        (["data.sources=[]"], ["data.sources: expected a list of at least 1, got []."]),
        (["data.sources.9.path=x"], ["9 is not an entry of a list of 4"]),
        (["data.sources.0.path=nowhere.csv"], ["data.sources.0.path: no such file or folder: nowhere.csv."]),
        (["optimizer.schedule=wsd"], ["command line: optimizer: ", "wsd needs decay_steps or decay_ratio"]),
        (["model.pretrained=nowhere", "model.size=null"], ["there is no folder nowhere.", "hub id"]),
        (["model.context_length=128"], ["model.context_length is 128", "need 512"]),
        (["data.min_past=5000"], ["all 414 series are shorter than 5048 steps", "1008, 1008", "data.min_past"]),
    ],
)
def test_settings(foreloom, settings, words):
    refused(foreloom("train", "chronos2-test", *settings, "--out", "run"), *words)
    assert not list(Path().glob("run/checkpoints/*"))


def test_all_mistakes_at_once(foreloom):
    wrong = ["training.stepz=3", "trainig.steps=4", "training.steps=many", "optimizer.weight_decay=.inf"]
    lost = ["data.sources.0.path=nowhere.csv", "model.size=null", "model.pretrained=./nowhere"]
    lost += ["data.sources.9.weight=1", "steps"]
    answer = foreloom("train", "chronos2-test", *wrong, *lost, "benchmark.steps=2", "benchmark.tasks=no.yaml")
    refused(answer, "training.stepz", "trainig", "'many'", "optimizer.weight_decay: expected a finite number, got inf")
    refused(answer, "no such file or folder: nowhere.csv", "model.pretrained: no such folder, and no hub id", "no.yaml")
    refused(answer, "9 is not an entry of a list of 4, counted from 0", "'steps': write an override as section.setting")
    assert len(answer.err.splitlines()) == 9


def test_recipes(foreloom):
    refused(foreloom("train", "chronos2-tst"), "no shipped recipe of that name", "Did you mean chronos2-test?")
    refused(foreloom("show", write("a.yaml", "model: [\n")), "a.yaml:2: not valid YAML")
    refused(foreloom("show"), "give a recipe, --list, --from-tsm FILE or --from-chronos FILE")
    listed = foreloom("show", "--list").out.splitlines()
    assert len(listed) == len(list((ROOT / "recipes").glob("*.yaml"))) and any("quickstart" in line for line in listed)
    refused(foreloom("show", "--from-tsm", "none.yaml"), "none.yaml: cannot be read")
    Path("bytes.yaml").write_bytes(b"\xff\xfe")
    refused(foreloom("train", "bytes.yaml"), "bytes.yaml: is not UTF-8 text")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.csv", "item_id,timestamp,target\n", ["empty.csv has no rows"]),
        (
            "text.csv",
            "ds,y\n2024-01-01,1\n2024-01-02,two\n",
            ["text.csv: column 'y' holds 'two' in row 3"],
        ),
        (
            "time.csv",
            "ds,y\n2024-01-01,1\nsoon,2\n",
            ["time.csv: column 'ds' holds 'soon' in row 3, wh"],
        ),
        ("columns.csv", "when,what\n1,2\n", ["the columns when, what are neither a long table"]),
        ("ragged.jsonl", '{"target": [[1, 2, 3], [1, 2]]}\n', ["ragged.jsonl:1", "'target' differ in length"]),
        ("broken.jsonl", '{"target": [1, 2]}\n{"target": [1,\n', ["broken.jsonl:2: not JSON"]),
        ("words.jsonl", '{"target": [1, "x"]}\n', ["words.jsonl:1", "'x' at step 1"]),
        ("broken.parquet", "PAR1", ["broken.parquet: not a readable Parquet file"]),
        ("notes.txt", "hello", ["notes.txt: not a data set. Accepted:", ".parquet, .jsonl"]),
    ],
)
def test_data_files(foreloom, name, text, words):
    write(name, text)
    refused(foreloom("data", "inspect", name), *words)
    refused(foreloom("train", "chronos2-test", f"data.sources.0.path={name}", "--out", "run"), *words)


def test_data_sets(foreloom):
    Path("folder").mkdir()
    refused(foreloom("data", "inspect", "folder"), "folder: not a data set, it holds nothing")
    refused(foreloom("data", "inspect", "nowhere"), "nowhere: there is no such file or folder")
    Path("saved").mkdir()
    refused(foreloom("data", "inspect", Path(write("saved/state.json", "{")).parent), "saved/state.json:", "not JSON")
    refused(foreloom("data", "inspect", Path(write("saved/state.json", "{}")).parent), "there is no '_data_files'")
    short = write("short.csv", "unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,2\nb,2024-01-01,1\n")
    answer = foreloom("train", "chronos2-test", f"data.sources=[{{path: {short}}}]", "--out", "run")
    refused(answer, "short.csv: all 2 series are shorter than 72 steps", "their lengths are 2, 1")
    refused(foreloom("data", "convert", BIRTHS, "births.txt"), "births.txt: the name should end in .arrow")
    assert foreloom("data", "convert", BIRTHS, "births.arrow").code == 0
    refused(foreloom("data", "convert", BIRTHS, "births.arrow"), "births.arrow: the file exists already")
    endless = "synth://ets stands for 1,048,576 series, made as they are read; say how many to write: "
    refused(foreloom("data", "convert", "synth://ets", "ets.arrow"), endless + "synth://ets?num_series=1000.")
    refused(foreloom("data", "inspect", BIRTHS, "--plot", "p.xyz")._replace(out=""), "p.xyz: a picture's name must end")


def test_models(foreloom, model):
    def ask(folder: str) -> Answer:
        return foreloom("forecast", folder, BIRTHS, "--horizon", "4")

    refused(ask("nowhere"), "there is no folder nowhere.")
    refused(ask(f"{model}s"), "Did you mean", f"{model}?")
    Path("bare").mkdir()
    refused(ask("bare"), "bare holds no model", "config.json")
    Path("t5").mkdir()
    write("t5/config.json", json.dumps({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}))
    refused(ask("t5"), "t5 holds a model foreloom does not know", "T5ForConditionalGeneration", "chronos2")
    Path("torn").mkdir()
    write("torn/config.json", "{")
    refused(ask("torn"), "torn/config.json:", "not valid JSON")

    (hf,) = model.glob("checkpoints/step-*/hf")
    shutil.copytree(hf, "cut")
    weights = Path("cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(ask("cut"), "cut/model.safetensors cannot be read", "truncated or damaged")
    weights.unlink()
    refused(ask("cut"), "cut has no model.safetensors")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quantiles", "0.1,1.5"], ["quantiles '0.1,1.5'", "between 0 and 1"]),
        (["--quantiles", "0.1;0.5"], ["quantiles '0.1;0.5'", "comma separated"]),
        (["--target", "sales"], ["births.csv has no column 'sales'. Its columns: item_id, timestamp, target."]),
        (["--id-column", "item"], ["births.csv has no column 'item'. Did you mean 'item_id'?"]),
        (["--out", "x.xlsx"], ["x.xlsx: foreloom reads and writes tables as .csv, .tsv and .parquet"]),
        (["--future", "none.csv"], ["no file none.csv"]),
        (["--context-length", "9999"], ["context_length is 9999; this model takes 1 to 64"]),
        (["--device", "gpu"], ["there is no device 'gpu'", "auto, cpu, cuda, mps"]),
        (["--device", "cuda:99"], ["there is no device 'cuda:99': torch sees", "counted from 0"]),
    ],
)
def test_forecast_options(foreloom, model, options, words):
    refused(foreloom("forecast", model, BIRTHS, "--horizon", "4", *options), *words)
    assert not Path("forecast.parquet").exists()


def test_forecast_tables(foreloom, model):
    def ask(table: str) -> Answer:
        return foreloom("forecast", model, table, "--horizon", "2", "--out", "out.csv")

    refused(ask("none.csv"), "no file none.csv")
    refused(ask(write("empty.csv", "")), "empty.csv cannot be read as a table")
    refused(ask(write("none_yet.csv", "ds,y\n")), "none_yet.csv has no rows")
    text = write("text.csv", "unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,two\na,2024-01-03,3\n")
    refused(ask(text), "text.csv: column 'y' holds 'two' in row 3 (series 'a')")
    gap = write("gap.csv", "unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,2\na,2024-01-03,3\na,2024-01-07,3\n")
    refused(
        foreloom("forecast", model, gap, "--horizon", "2", "--freq", "W-MON"), "not on the steps of freq", "2024-01-02"
    )
    assert not Path("out.csv").exists()
    answer = ask(gap)
    assert answer.code == 0 and "gap.csv: 3 of 7 steps are absent, in 1 of 1 series" in answer.err
    assert "understood: 1 series of 7 steps, frequency D; target y; chronos2 of " in answer.err
    write(
        "promo.csv", "ds,y,promo,x\n" + "".join(f"2024-01-0{day},{day if day < 7 else ''},1,2\n" for day in range(1, 9))
    )
    answer = foreloom("forecast", model, "promo.csv", "--horizon", "2", "--known-ahead", "promo", "--past", "x")
    assert "1 series of 6 steps, frequency D; target y; known ahead promo; past x; chronos2" in answer.err
    inspected = foreloom("data", "inspect", "promo.csv", "--known-ahead", "promo", "--category", "x", "--horizon", "2")
    assert "past: x; known ahead: promo; categorical among them: x" in inspected.out
    convert = ("data", "convert", "promo.csv", "promo.arrow", "--static", "x", "--no-fill-gaps", "--freq", "D")
    assert foreloom(*convert).code == 0
    assert "past: promo; static: x" in foreloom("data", "inspect", "promo.arrow").out


def test_a_horizon_beyond_the_model_is_unrolled_with_a_sentence(foreloom, model):
    answer = foreloom("forecast", model, BIRTHS, "--horizon", "20", "--out", "long.csv")
    assert answer.code == 0
    assert answer.err.startswith(
        "warning: prediction_length 20 is beyond the 16 steps the model gives at once: "
        "the forecast is unrolled and less sure.\nunderstood: 1 series of 1,096 steps, frequency D; target target; "
    )
    assert answer.out == "wrote long.csv\n"
    assert len(Path("long.csv").read_text().splitlines()) == 21


def test_tasks(foreloom, model):
    tasks = write(
        "tasks.yaml",
        "tasks:\n  - {name: a, path: nowhere.parquet, prediction_length: 4}\n"
        "  - {name: b, pathh: x, path: y, prediction_length: 0}\n",
    )
    answer = foreloom("evaluate", model, "--tasks", tasks)
    refused(answer, "tasks.yaml:2: no data at nowhere.parquet", "tasks.yaml:3: tasks.1.pathh: unknown setting")
    assert "tasks.1.prediction_length: expected a number of at least 1, got 0." in answer.err
    refused(foreloom("evaluate", model, "--tasks", "none.yaml"), "none.yaml: cannot be read")
    refused(foreloom("evaluate", model, "--tasks", write("list.yaml", "- a\n")), "expected a list of tasks")


def test_what_a_model_is_scored_on(foreloom, model):
    refused(foreloom("evaluate", model), "give --suite NAME, --tasks FILE or --data FILE")
    refused(
        foreloom("evaluate", model, "--tasks", "t.yaml", "--data", "d.csv"), "--tasks and --data exclude one another"
    )
    answer = foreloom("evaluate", model, "--tasks", "t.yaml", "-p", "96", "--protocol", "timemoe")
    refused(answer, "--horizon, --protocol: only for --data, without effect beside --tasks")
    refused(
        foreloom("evaluate", model, "--data", "d.csv", "--data-root", "x"), "--data-root: only for --suite and --tasks"
    )
    windows = ("evaluate", model, "--data", BIRTHS)
    refused(foreloom(*windows, "-p", "96,many"), "--horizon '96,many': write whole numbers of steps")
    refused(foreloom(*windows, "-p", "0"), "--horizon '0': write whole numbers of steps")
    refused(foreloom(*windows, "--protocol", "timemo"), "expected standard or timemoe. Did you mean timemoe?")
    refused(foreloom(*windows, "--normalization", "zero"), "--normalization 'zero': expected none or context.")
    refused(foreloom(*windows, "--date-column", "timestamp"), "column 'item_id' holds 'us' in row 2", "--channels")
    births = (*windows, "--date-column", "timestamp", "--channels", "target")
    refused(foreloom(*births, "-c", "65"), "a context of 65 steps was asked for, but the model uses 64 at most")
    refused(foreloom(*births, "-p", "9999"), "horizon 9999 was not scored", "needs 9,999 test rows")
    refused(foreloom(*births, "-p", "9999,9998"), "horizon 9999 was not scored", "horizon 9998 was not scored")


def test_every_window_of_a_table(foreloom, model):
    births = ("--data", BIRTHS, "--date-column", "timestamp", "--channels", "target", "--season", "7")
    answer = foreloom("evaluate", model, *births, "-p", "8,9999,96", "-c", "50", "--out", "scores/births.csv")
    assert answer.code == 0, answer.err
    assert "note: horizon 9999 was not scored." in answer.out
    with Path("scores/births.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    named = [(row["model"], row["task"], row["horizon"], row["context"]) for row in rows]
    assert named[:3] == [
        ("tiny", "births-8", "8", "50"),
        ("tiny", "births-9999", "9999", "0"),
        ("tiny", "births-96", "96", "50"),
    ]
    assert [row["model"] for row in rows[::3]] == ["tiny", "last-value", "seasonal-naive"]
    assert {row["num_windows"] for row in rows if row["horizon"] == "9999"} == {"0"}
    length = len(Path(BIRTHS).read_text().splitlines()) - 1
    assert {int(row["num_windows"]) for row in rows if row["horizon"] == "8"} == {int(0.2 * length) - 7}
    assert float(rows[-1]["MSE"]) < float(rows[3]["MSE"]), "births have a week"
    written = {path.name for path in Path("scores").iterdir()}
    assert written == {f"births{end}" for end in (".csv", ".md", ".svg", "-births-8.svg", "-births-96.svg")}
    assert "| births-9999 | not scored |" in Path("scores/births.md").read_text()


def data_root(**series: list[float]) -> str:
    """A folder with data sets of a suite, each of two hourly series, as JSON lines."""
    for name, values in series.items():
        Path("root", name).mkdir(parents=True)
        lines = [{"item_id": one, "start": "2024-01-01", "freq": "h", "target": values} for one in "ab"]
        write(f"root/{name}/data.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return "root"


def test_a_suite_is_scored_as_far_as_its_data_go(foreloom, model):
    hours = [float(i % 24) + i / 100 for i in range(200)]
    root = data_root(m4_hourly=hours, nn5=hours)
    answer = foreloom("evaluate", model, "naive", "--suite", "chronos-lite", "--data-root", root)
    assert answer.code == 0, answer.err
    missing = (
        "note: 3 of the 5 tasks of chronos-lite have no data below root: m4_monthly, monash_weather, exchange_rate."
    )
    assert missing in answer.out and "foreloom data fetch chronos-lite --out root" in answer.out
    with Path("chronos-lite-scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    named = [(row["model"], row["task"]) for row in rows]
    assert named == [(one, task) for one in ("tiny", "naive", "seasonal-naive") for task in ("m4_hourly", "nn5")]
    pictures = {f"chronos-lite-scores-{one}-{task}.svg" for one in ("tiny", "naive") for task in ("m4_hourly", "nn5")}
    assert {path.name for path in Path().glob("*.svg")} == pictures | {"chronos-lite-scores.svg"}

    board = foreloom("report", "leaderboard", "chronos-lite", "--results", "chronos-lite-scores.csv")
    assert board.code == 0 and "tiny (yours)" in board.out and "chronos-bolt-base" in board.out
    assert foreloom("report", "compare", "chronos-lite-scores.csv", "--out", "table.tex").code == 0
    assert r"\begin{table}" in Path("table.tex").read_text()
    refused(
        foreloom("report", "compare", "chronos-lite-scores.csv", "--format", "pdf"), "--format 'pdf': expected markdown"
    )
    refused(foreloom("report", "compare", "chronos-lite-scores.csv", "--metric", "mas"), "Did you mean MASE?")

    refused(foreloom("evaluate", "naive", "--suite", "chronos-lit", "--data-root", root), "Did you mean chronos-lite?")
    refused(foreloom("evaluate", "naive", "--suite", "chronos-lite"), "say where its data sets lie with --data-root")
    Path("empty").mkdir()
    none = foreloom("evaluate", "naive", "--suite", "gift-eval", "--data-root", "empty")
    refused(none, "97 of the 97 tasks", "foreloom data fetch gift-eval --out empty")
    refused(
        foreloom("evaluate", "naive", "--suite", "ltsf", "--data-root", root, "-p", "96"), "--horizon: only for --data"
    )


def test_the_ltsf_suite_is_scored_by_its_protocol(foreloom):
    Path("root").mkdir()
    hours = "".join(
        f"2016-{1 + i // 672:02d}-{1 + i % 672 // 24:02d} {i % 24:02d}:00:00,{i % 7}.0\n" for i in range(966)
    )
    write("root/national_illness.csv", "date,cases\n" + hours)
    answer = foreloom("evaluate", "drift", "--suite", "ltsf", "--data-root", "root", "--out", "ltsf.csv")
    assert answer.code == 0, answer.err
    assert "note: 32 of the 36 tasks of ltsf have no data below root: ETTh1-96" in answer.out
    with Path("ltsf.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["task"] for row in rows[:4]] == ["ILI-24", "ILI-36", "ILI-48", "ILI-60"]
    assert [row["num_windows"] for row in rows[:4]] == ["170", "158", "146", "134"], "as the suite lists them"
    assert [row["model"] for row in rows[::4]] == ["drift", "last-value", "seasonal-naive"]


def test_data_verbs_beyond_inspect(foreloom, model):
    refused(foreloom("data", "fetch", "chronos-lit", "--out", "root"), "no such suite. Did you mean chronos-lite?")
    answer = foreloom("data", "fetch", "chronos-lite", "--out", "root", "--verify", "--only", "m4_hourly, nn5")
    assert answer.code == 1 and "m4_hourly" in answer.out
    both = foreloom("data", "fetch", "chronos-lite", "--out", "root", "--verify", "--dry-run")
    refused(both, "exclude one another")
    answer = foreloom("data", "synth", "patterns", "--num-series", "8", "--length", "50", "--out", "patterns.arrow")
    assert answer.code == 0 and "wrote 8 series, 400 steps, to patterns.arrow" in answer.out
    assert "4,096 steps" in foreloom("data", "inspect", "synth://patterns?num_series=2&length=4096").out
    assert foreloom("data", "synth").out == foreloom("data", "synth", "kernel", "--list").out
    refused(foreloom("data", "synth", "kernel", "max_kernel=2", "--out", "k.arrow"), "Did you mean max_kernels?")
    answer = foreloom("data", "replay", model, "2", "--out", "batch.csv")
    assert answer.code == 0 and "wrote batch.csv" in answer.out
    refused(foreloom("data", "replay", model, "2", "--samples", "a"), "--samples 'a': write whole numbers")


def test_scores_in_a_run_folder_are_on_its_page(foreloom, model):
    shutil.copytree(model, "run")
    births = ("--data", BIRTHS, "--date-column", "timestamp", "--channels", "target")
    answer = foreloom("evaluate", "run", *births, "-p", "8,16")
    assert answer.code == 0, answer.err
    assert "wrote run/evaluation/births.csv" in answer.out
    assert foreloom("report", "run").code == 0
    page = Path("run/report.html").read_text()
    assert "MSE relative to seasonal-naive" in page
    assert "births-16" in page


def test_one_folder_holds_one_run(foreloom, model):
    before = sorted(path.name for path in model.iterdir())
    answer = foreloom("train", "chronos2-test", "--out", model)
    refused(answer, f"{model} holds an earlier run", "step-00000002", "--resume")
    assert sorted(path.name for path in model.iterdir()) == before


def test_a_run_does_not_go_on_as_another_one(foreloom, model):
    shutil.copytree(model, "run")
    before = Path("run/recipe.yaml").read_text()
    resumed = ("training.steps=3", "--out", "run", "--resume")
    other_model = foreloom("train", "run/recipe.yaml", "model.d_model=64", *resumed)
    refused(other_model._replace(out=""), "does not fit this run's model", "resume with the recipe it was written with")
    other_data = foreloom("train", "run/recipe.yaml", "data.context_length=32", *resumed)
    refused(other_data._replace(out=""), "The data are not those this run was stopped with", "start a new run")
    assert Path("run/recipe.yaml").read_text() == before


def test_what_the_console_shows_is_no_change_of_a_recipe(foreloom, model):
    shutil.copytree(model, "run")
    recipe = str(Path("run") / "recipe.yaml")
    answer = foreloom("train", recipe, "training.steps=3", "--out", "run", "--resume", "--quiet")
    assert answer.code == 0 and "training.steps 2 -> 3" in answer.out and "monitoring.quiet" not in answer.out


def test_two_runs_at_once_in_one_folder(foreloom):
    from foreloom.checkpoint.claim import claim

    with claim(Path("run"), resume=False):
        refused(
            foreloom("train", "chronos2-test", "--out", "run"), "belongs to a run that is still going on", "process"
        )


def test_numbers_for_programs(foreloom):
    found = json.loads(foreloom("data", "inspect", "examples/births.csv", "--json").out)
    assert (found["num_series"], found["num_points"], found["freqs"]) == (1, 1096, {"D": 1})
    write("t.yaml", f"tasks: [{{name: births, path: {BIRTHS}, prediction_length: 28, season_length: 7}}]\n")
    answer = foreloom("evaluate", "naive", "--tasks", "t.yaml", "--out", "scores.csv", "--json")
    scores = json.loads(answer.out)
    assert scores["title"] == "naive on t.yaml" and scores["rows"][0]["Task"] == "births"
    row = {
        row["task"]: row
        for row in csv.DictReader(Path("scores.csv").read_text().splitlines())
        if row["model"] == "naive"
    }["births"]
    assert scores["rows"][0]["MASE"] == pytest.approx(float(row["MASE"]))
    compared = json.loads(foreloom("report", "compare", "scores.csv", "--format", "json").out)
    assert compared["rows"] and compared["summary"]
    assert foreloom("report", "compare", "scores.csv", "--out", "scores.json").out == "wrote scores.json\n"
    assert json.loads(Path("scores.json").read_text()) == compared


def test_a_quiet_run_and_an_old_file(foreloom):
    small = ["model.d_model=32", "model.d_ff=32", "training.steps=1", "training.batch_size=2", "training.device=cpu"]
    answer = foreloom("train", "chronos2-test", *small, "monitoring.trackers=[none]", "--out", "run", "--quiet")
    assert (answer.code, answer.out) == (0, "")
    assert "Step 1/1" in Path("run/training.log").read_text()
    old = write("old.yaml", "random_init: true\ntraining_data_paths: [a]\nmax_steps: 9\n")
    for verb in ("train", "show"):
        refused(foreloom(verb, old), "a flat configuration of TSM-Trainer", "foreloom show --from-tsm old.yaml")


def test_places_are_tried_before_the_work(foreloom, model, monkeypatch):
    def work(*_, **__):
        raise AssertionError("the work has begun")

    Path("file").touch()
    for place in ("foreloom.data.inspect.inspect", "foreloom.report.step_windows.batch_of_step"):
        monkeypatch.setattr(place, work)
    monkeypatch.setattr("foreloom.forecast.model.Model.predict_table", work)
    replay, forecast = ("data", "replay", model, "1"), ("forecast", model, BIRTHS, "--horizon", "4")
    nothing = "/file/a.png: "
    refused(
        foreloom("data", "inspect", BIRTHS, "--plot", "file/a.png"), "--plot /", nothing, "nothing lies below a file"
    )
    refused(foreloom("data", "inspect", BIRTHS, "--plot", "a.txt"), "a picture's name must end in")
    refused(foreloom("data", "synth", "kernel", "--plot", "file/a.png"), "--plot /", "nothing lies below a file")
    refused(foreloom(*replay, "--out", "file/a.csv"), "--out /", "nothing lies below a file")
    refused(foreloom(*replay, "--plot", "file/a.png"), "--plot /", nothing)
    refused(foreloom(*replay, "--exclude", "file/a.jsonl", "--samples", "1"), "--exclude /", "below a file")
    refused(foreloom(*forecast, "--out", "file/a.csv"), "--out /", "nothing lies below a file")
    refused(foreloom(*forecast, "--out", "a.csv/"), "--out", "a.csv/ ends in a stroke, as folders do")
    refused(foreloom("evaluate", model, "--data", BIRTHS, "--out", "a.csv/"), "--out", "ends in a stroke")
    refused(foreloom("data", "convert", BIRTHS, "a.parquet/"), "a.parquet/ ends in a stroke")


def test_reports_want_a_run(foreloom):
    refused(foreloom("report", "nowhere"), "nowhere holds no metrics.jsonl", "folder of a run")
    for verb in ("fit", "lr-fit", "frontiers", "report"):
        refused(foreloom("lab", verb, "nowhere"), "nowhere: no such file or folder. Give a CSV of N, D and L")


def test_a_traceback_for_those_who_ask(monkeypatch, foreloom):
    monkeypatch.setenv("FORELOOM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no shipped recipe"):
        foreloom("train", "chronos2-tst")


def test_a_full_disk_and_a_refused_folder_get_a_sentence(foreloom, monkeypatch):
    def fill(self, *_, **__):
        raise OSError(28, "No space left on device")

    Path("file").touch()
    refused(foreloom("data", "convert", BIRTHS, "file/births.parquet"), "nothing lies below a file")
    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", fill)
    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_batch", fill)
    refused(
        foreloom("data", "convert", BIRTHS, "births.parquet"), "births.parquet could not be written", "disk is full"
    )
    assert not Path("births.parquet").exists()
