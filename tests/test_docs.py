"""README and guides are true: their commands run, what they print is what is shown, and what they name exists.

Fences: `sh` and `python` blocks run in order, one folder a page (the README's holds what `make quickstart` leaves); an
`output` block must equal what the block above it printed; the commands of a `console` block cannot run here (other
machines, a network, a GPU), so those of foreloom are parsed only, and the other programs must be among `ELSEWHERE`.

All commands run in this process, which has torch imported, the trainings of an A/B test too. What takes long and has no
say in what is compared is cut: trainings and models of which a page shows nothing that hangs on their length and size
(`SHORTER`), and four of the six example tasks.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from torch.distributed.run import parse_args

from foreloom import cli, run
from foreloom.config.shipped import shipped_recipes
from foreloom.lab import runs as lab_runs
from foreloom.run import train
from in_process import foreloom, run_process

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "data", "training", "forecasting", "evaluation", "fine_tuning", "aws_gpu", "monitoring", "ab", "chronos_t5",
    "language_models", "mup", "training_at_scale", "scaling_lab", "scaling_fits", "memory", "planning", "your_own_csv",
    "coming_from",
)  # fmt: skip
GUIDES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES)]
ELSEWHERE = {
    "apt-get": "installs software on the machine",
    "aws": "needs an account with Amazon",
    "chmod": "of a key that the reader has and we have not",
    "curl": "needs a network",
    "docker": "builds and starts containers",
    "git": "needs a network",
    "hf": "needs a network, or an account with Hugging Face",
    "icacls.exe": "is Windows'",
    "make": "installs first",
    "nvidia-smi": "needs a GPU",
    "pip": "needs a network",
    "python3": "makes an environment to install into, and downloads data",
    "scp": "needs the other machine",
    "shutdown": "would",
    "ssh": "needs the other machine",
    "tensorboard": "does not return",
    "tmux": "does not return",
}
"""What `console` blocks may tell a reader to type besides foreloom, and why no test does."""
SMALL = ["model.num_layers=1", "model.d_model=32", "model.d_kv=16", "model.d_ff=32", "training.batch_size=4"]
SHORTER = {
    "runs/quickstart": [*SMALL, "training.steps=2", "training.save_steps=2"],
    "runs/shorter": [*SMALL, "training.steps=2"],
    "runs/from-python": [*SMALL, "training.steps=2"],
    "runs/on-births": ["training.steps=2"],
    "runs/first": SMALL,
    "runs/two": SMALL,
    "runs/from-a-program": SMALL,
    "runs/stage1": SMALL,
    "runs/stage2": ["training.batch_size=4"],
    "runs/without": [*SMALL, "training.steps=2"],
    "runs/forecaster": ["training.steps=2", "training.batch_size=4"],
    "runs/scored": [*SMALL, "training.steps=2"],
    "runs/routed": [*SMALL, "training.steps=2"],
    "runs/validated": ["training.steps=10"],
    "runs/benchmarked": [*SMALL, "training.batch_size=16", "training.steps=20"],
    "runs/births": ["training.steps=2"],
    "runs/check-cpu": SMALL,
    "runs/aws-first": SMALL,
    "runs/aws-births": ["training.steps=2"],
    "runs/etth1-short": ["training.steps=2", "training.batch_size=4"],
    "runs/t5": [*SMALL, "training.steps=2", "validation.steps=2"],
    "runs/t5-moe": [*SMALL, "training.steps=2", "validation.steps=2"],
    "runs/ab": [*SMALL, "training.steps=1", "validation.steps=1", "model.num_samples=2"],
    "runs/first-look": ["model.max_position_embeddings=128", "validation.max_windows=4"],
    "runs/causal": ["model.num_layers=1", "model.d_ff=32", "training.steps=2", "validation.steps=2"],
    "runs/tiny": ["training.steps=4", "validation.steps=2", "validation.max_windows=4", "validation.prompt_tokens=5"],
}
"""Run folder -> what the test of its page adds to the command, or the call, that trains into it."""
FEWER_MINUTES = ("minutes=2,", "minutes=0.3,")
"""Of a `fit` in Python."""
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
RECIPES = set(shipped_recipes())


class Block(NamedTuple):
    kind: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)  # indented in a list
    return [
        Block(found[2], re.sub(f"^{found[1]}", "", found[3], flags=re.M), text.count("\n", 0, found.start()) + 1)
        for found in fence.finditer(text)
    ]


def commands(text: str) -> list[list[str]]:
    """The words of each line, continued lines joined, comments dropped."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def statements(text: str) -> list[str]:
    """The lines of a shell block; continued lines and here-documents stay whole."""
    whole = re.compile(r"(?:[^\n]*\\\n)*[^\n]*?<<'(\w+)'.*?^\1$|(?:[^\n]*\\\n)*[^\n]+", re.DOTALL | re.MULTILINE)
    return [found[0] for found in whole.finditer(text)]


def shorter(words: list[str]) -> list[str]:
    """Arguments with what `SHORTER` has for their `--out`."""
    out = words[words.index("--out") + 1] if "--out" in words else ""
    return [*words, *SHORTER.get(out, ())]


def run_statement(text: str) -> str:
    """What a statement prints. `foreloom ...` runs in this process, whatever its output goes into in a shell. Behind
    torchrun, which parses its own options, it runs as one rank: `tests/launch` starts several."""
    if text.startswith("torchrun "):
        given = parse_args(shlex.split(text)[1:])
        assert given.module and given.training_script == "foreloom", text
        text = shlex.join([given.training_script, *given.training_script_args])
    if not text.startswith("foreloom "):
        return shell(text)
    found = re.fullmatch(r"(.*?)(?: (>|\|) (.*))?", re.sub(r" +#.*", "", text), re.DOTALL)
    assert found
    command, into, rest = found.groups()
    assert not re.search(r"[<>&;|]", re.sub(r"\"[^\"]*\"|'[^']*'", "", command)), f"{text}: needs a shell"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        (words,) = commands(command)
        assert foreloom(shorter(words[1:])) == 0, text
    printed = out.getvalue()
    return shell(f"cat > {rest}" if into == ">" else rest, printed) if into else printed


def shell(text: str, given: str = "") -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The working directory of a reader: examples (of the tasks the smallest two), an empty cache."""
    (tmp_path / "examples").mkdir()
    for name in ("data", "births.csv"):
        (tmp_path / "examples" / name).symlink_to(ROOT / "examples" / name)
    tasks = (ROOT / "examples" / "tasks.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    left_out = ("m4_hourly", "m3_monthly", "vehicle_trips", "traffic_weekly")
    few = [line for line in tasks if not any(f"name: {name}," in line for name in left_out)]
    assert len(few) == len(tasks) - len(left_out)
    (tmp_path / "examples" / "tasks.yaml").write_text("".join(few), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(lab_runs, "run_process", run_process)
    shortened = lambda recipe, overrides=(), *, out: train(recipe, [*overrides, *SHORTER.get(out, ())], out=out)
    monkeypatch.setattr("foreloom.train", shortened)
    return tmp_path


def quickstart() -> None:
    """What `make quickstart` runs once foreloom is installed, of two steps."""
    rule = re.search(r"^quickstart:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert rule
    plain = re.sub(r"\$\(if.*\)", "", rule[1]).replace("$(OUT)", "runs/quickstart")
    lines = [line.split() for line in re.findall(r"foreloom (.*)$", plain, re.MULTILINE)]
    assert [words[0] for words in lines] == ["train", "evaluate", "forecast", "report"]
    for words in lines:
        assert foreloom(shorter(words)) == 0, words


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_block_of_a_guide_runs(page, checkout, request):
    if page.stem == "fine_tuning":  # what its reader downloads
        (checkout / "ETTh1.csv").symlink_to(request.getfixturevalue("shared") / "data" / "ltsf_csv" / "ETTh1.csv")
    if page.stem == "README":
        quickstart()
    before = {path.name for path in checkout.iterdir()}
    names: dict[str, object] = {}
    printed = ""
    for block in blocks(page):
        place = f"{page.name}:{block.line}"
        if block.kind == "output":
            assert printed.rstrip() == block.text.rstrip(), f"{place}: this is not what the block above it prints"
        elif block.kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * block.line + block.text.replace(*FEWER_MINUTES), place, "exec"), names)
            printed = out.getvalue()
        elif block.kind == "sh":
            printed = "".join(run_statement(text) for text in statements(block.text))
        else:
            assert block.kind in ("console", "text", "yaml", "json"), f"{place}: what is a {block.kind!r} block?"
    left = {path.name for path in checkout.iterdir()} - before
    assert left <= {"runs", "try", "cache"}, f"{page.name} writes beside what is the reader's own"


def test_the_notebook_is_the_guide():
    """Its code is run as the guide's."""
    path = ROOT / "examples" / "notebook.py"
    module = runpy.run_path(str(path))
    written = json.loads(module["NOTEBOOK"].read_text(encoding="utf-8"))
    assert written == module["notebook"](module["GUIDE"].read_text(encoding="utf-8")), f"run {path.name} again"
    words = "".join("".join(cell["source"]) for cell in written["cells"] if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\((?!http)([^)#\s]+)", words):
        assert (path.parent / target).exists(), target


def parse(arguments: list[str]) -> None:
    """As far as typer goes without running the verb, then the settings."""
    node: Any = typer.main.get_command(cli.app)
    context = node.make_context("foreloom", list(arguments), resilient_parsing=True)
    rest = list(arguments)
    while hasattr(node, "get_command"):
        name = rest.pop(0)
        if node.name == "report" and name not in node.commands:  # `report RUN` is `report page RUN`
            name, rest = "page", [name, *rest]
        found = node.get_command(context, name)
        assert found is not None, f"there is no verb {name!r}"
        node = found
    context = node.make_context(node.name, rest)
    if node.name in ("train", "show") and context.params.get("recipe"):
        run.load(context.params["recipe"], context.params["overrides"] or [], need_data=False)


def spoken(words: list[str]) -> list[str] | None:
    """Arguments of foreloom in a command line, also behind torchrun or srun; None where it is something else."""
    for start in ("foreloom",):
        if start in words:
            return list(takewhile(lambda word: word not in ("|", ">", "&&", ";"), words[words.index(start) + 1 :]))
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_only_shown_parse(page):
    for block in blocks(page):
        if block.kind == "console" or (block.kind == "sh" and page not in GUIDES):
            for words in commands(block.text):
                arguments = spoken(words)
                if arguments:
                    parse(arguments)


def programs(text: str) -> set[str]:
    """What a block starts, past `sudo` and loops; foreloom under torchrun or srun is foreloom."""
    found = set()
    parts = {";": "\n", "$": ""}
    split = re.compile(r"\"[^\"]*\"|\$\([^)]*\)|;")
    for words in commands(split.sub(lambda part: parts.get(part[0][0], part[0]), text)):
        words = [word for word in words if word not in ("sudo", "do", "done")]
        if words and not spoken(words) and words[0] not in ("for", "echo", "cd", "."):
            found.add(Path(words[0]).name)
    return found


def test_what_the_guides_do_not_run_is_known():
    shown = [programs(block.text) for page in GUIDES for block in blocks(page) if block.kind == "console"]
    assert set().union(*shown) == set(ELSEWHERE)


def folders(page: Path) -> set[str]:
    """What the commands of a page write a run into."""
    lines = [words for block in blocks(page) if block.kind in ("sh", "console") for words in commands(block.text)]
    written = [spoken(words) or [] for words in lines]
    trained = [words for words in written if words[:1] == ["train"] or words[:2] == ["lab", "ab"]]
    called = re.findall(
        r"\btrain\(.*out=\"(.*?)\"", "".join(block.text for block in blocks(page) if block.kind == "python")
    )
    return {words[words.index("--out") + 1] for words in trained if "--out" in words and "--resume" not in words} | {
        *called
    }


def test_no_two_pages_share_a_run_folder():
    owners: dict[str, str] = {}
    for page in PAGES:
        for folder in folders(page):
            assert owners.setdefault(folder, page.name) == page.name, f"{folder}: in {owners[folder]} and {page.name}"
    assert "runs/quickstart" not in owners, "is what make quickstart leaves"
    assert set(SHORTER) <= {"runs/quickstart", *owners}


def test_a_block_is_cut_into_statements():
    text = "cat > a <<'END'\nx \\\n\ny\nEND\nforeloom train a \\\n  b=1 --out c\n\nls\n"
    assert statements(text) == ["cat > a <<'END'\nx \\\n\ny\nEND", "foreloom train a \\\n  b=1 --out c", "ls"]


def test_a_wrong_command_would_be_noticed():
    with pytest.raises(AssertionError, match="no verb 'trian'"):
        parse(["trian", "chronos2-test"])
    with pytest.raises(Exception, match="No such option: --horizn"):  # the class is click's or typer's own
        parse(["forecast", "model", "data.csv", "--horizn", "3"])
    with pytest.raises(Exception, match="No such option: --plott"):
        parse(["report", "runs/base", "--plott"])
    with pytest.raises(ValueError, match="unknown setting"):
        parse(["train", "chronos2-test", "training.stepz=3"])
    assert spoken(["torchrun", "-m", "foreloom", "train", "x"]) == ["train", "x"]
    assert programs("for x in $(aws y); do echo x; curl z; done\nsudo reboot\nforeloom a ; wget b") == {
        "curl",
        "reboot",
        "wget",
    }


def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in headings(linked), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:chronos2|chronos-bolt|chronos-t5|time-moe|gemma3|tiny)-[\w-]+)`", text))
    named |= set(re.findall(r"recipes/([\w-]+)\.yaml", text))
    assert named <= RECIPES


def test_the_training_guide_names_every_recipe():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert {name for name in RECIPES if f"`{name}`" in text} == RECIPES
