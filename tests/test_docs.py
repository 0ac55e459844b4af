"""The guides are true: their commands run, what they print is what is shown, and what they name exists.

Fences: `sh` and `python` blocks run in order, one folder a guide; an `output` block must equal what the block above it
printed; the commands of a `console` block cannot run here (other machines, a network, a GPU), so those of foreloom are
parsed only, and the other programs must be among `ELSEWHERE`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from foreloom import cli, run
from foreloom.config.loader import shipped_recipes

ROOT = Path(__file__).resolve().parents[1]
GUIDES = (
    "data",
    "training",
    "forecasting",
    "evaluation",
    "fine_tuning",
    "aws_gpu",
    "monitoring",
    "ab",
    "chronos_t5",
    "language_models",
)
ELSEWHERE = {
    "apt-get": "installs software on the machine",
    "aws": "needs an account with Amazon",
    "chmod": "of a key that the reader has and we have not",
    "curl": "needs a network",
    "git": "needs a network",
    "icacls.exe": "is Windows'",
    "nvidia-smi": "needs a GPU",
    "pip": "needs a network",
    "python3": "makes an environment to install into",
    "scp": "needs the other machine",
    "shutdown": "would",
    "ssh": "needs the other machine",
    "tensorboard": "does not return",
    "tmux": "does not return",
}
"""What `console` blocks may tell a reader to type besides foreloom, and why no test does."""
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
RECIPES = {path.stem for path in shipped_recipes().glob("*.yaml")}


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


def only_foreloom(text: str) -> bool:
    """No pipes, files or other programs?"""
    return not re.search(r"[|<>&;]", text) and all(words[0] == "foreloom" for words in commands(text))


def foreloom(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: a fresh one takes seconds to import torch."""
    monkeypatch.setattr(sys, "argv", ["foreloom", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code, arguments


def shell(text: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("guide", GUIDES)
def test_every_block_of_a_guide_runs(guide, tmp_path, monkeypatch, request):
    for name in ("examples", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    if guide == "fine_tuning":  # what its reader downloads
        (tmp_path / "ETTh1.csv").symlink_to(request.getfixturevalue("shared") / "data" / "ltsf_csv" / "ETTh1.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORELOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    names: dict[str, object] = {}
    printed = ""
    for block in blocks(ROOT / "docs" / f"{guide}.md"):
        place = f"docs/{guide}.md:{block.line}"
        if block.kind == "output":
            assert printed.rstrip() == block.text.rstrip(), f"{place}: this is not what the block above it prints"
        elif block.kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * block.line + block.text, place, "exec"), names)
            printed = out.getvalue()
        elif block.kind == "sh" and only_foreloom(block.text):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                for words in commands(block.text):
                    foreloom(words[1:], monkeypatch)
            printed = out.getvalue()
        elif block.kind == "sh":
            printed = shell(block.text)
        else:
            assert block.kind in ("console", "text", "yaml", "json"), f"{place}: what is a {block.kind!r} block?"


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
        if block.kind == "console" or (block.kind == "sh" and page.stem not in GUIDES):
            for words in commands(block.text):
                arguments = spoken(words)
                if arguments:
                    parse(arguments)


def programs(text: str) -> set[str]:
    """What a block starts, past `sudo` and loops; foreloom under torchrun or srun is foreloom."""
    found = set()
    for words in commands(re.sub(r"\$\([^)]*\)|;", lambda part: "\n" if part[0] == ";" else "", text)):
        words = [word for word in words if word not in ("sudo", "do", "done")]
        if words and not spoken(words) and words[0] not in ("for", "echo", "cd", "."):
            found.add(Path(words[0]).name)
    return found


def test_what_the_guides_do_not_run_is_known():
    pages = [ROOT / "docs" / f"{guide}.md" for guide in GUIDES]
    shown = [programs(block.text) for page in pages for block in blocks(page) if block.kind == "console"]
    assert set().union(*shown) == set(ELSEWHERE)


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
