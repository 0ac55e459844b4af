"""The environment record names what a rerun needs and nothing about the machine's owner."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import torch

from foreloom.monitoring.environment import environment, write_environment


def read(folder):
    return json.loads((folder / "environment.json").read_text(encoding="utf-8"))


def test_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/foreloom", "train", "my recipe.yaml"])
    write_environment(tmp_path)
    found = read(tmp_path)
    assert found["command"] == "foreloom train 'my recipe.yaml'"
    assert found["git"] is None
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["memory_bytes"] > 2**28
    assert platform.node() not in json.dumps(found["hardware"])


def test_a_module_is_named_by_the_command_that_starts_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/foreloom/__main__.py", "train", "quickstart"])
    assert environment()["command"] == "python -m foreloom train quickstart"


def test_the_commit_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = lambda *arguments: subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout
    run("init", "-q")
    (tmp_path / "a").write_text("1")
    run("add", "a")
    run("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "first")
    write_environment(tmp_path)
    assert read(tmp_path)["git"] == {"commit": run("rev-parse", "HEAD").strip(), "dirty": False}
    (tmp_path / "a").write_text("2")
    write_environment(tmp_path)
    assert read(tmp_path)["git"]["dirty"] is True
