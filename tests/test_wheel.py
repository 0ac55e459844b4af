"""What `pip install` gives: a wheel brings recipes and example data along, and the quickstart runs from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

QUICKSTART = """\
import sys
from pathlib import Path
import foreloom
from foreloom import cli

assert Path(foreloom.__file__).is_relative_to(sys.prefix), foreloom.__file__
small = "training.steps=2 training.batch_size=4 model.num_layers=1 model.d_model=32 model.d_ff=32 model.num_heads=1"
for line in (
    "show --list",
    "show quickstart",
    "forecast small examples/births.csv --horizon 28 --out first.csv",
    f"train quickstart {small} monitoring.trackers=[none] --out runs/quickstart",
    "evaluate runs/quickstart --tasks examples/tasks.yaml",
    "forecast runs/quickstart examples/births.csv --horizon 28 --out forecast.csv",
    "report runs/quickstart",
    "evaluate naive --suite chronos-lite --data-root nowhere",
):
    sys.argv = ["foreloom", *line.split()]
    try:
        cli.main()
    except SystemExit as left:
        print("::", line.partition(" ")[0], left.code or 0)
"""


def run(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([*map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_quickstart_runs_from_a_wheel_away_from_the_checkout(tmp_path):
    pytest.importorskip("hatchling", reason="builds the wheel; pip install hatchling")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    run(*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("foreloom-*.whl")
    assert wheel.stat().st_size < 10e6, "the trained model in it included"
    fresh = tmp_path / "fresh"
    run(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=tmp_path)
    python = fresh / "bin" / "python"
    run(*pip, "--python", python, "install", *offline, wheel, cwd=tmp_path)
    (packages,) = fresh.glob("lib/*/site-packages")
    (packages / "what-foreloom-needs.pth").write_text(sysconfig.get_path("purelib"))

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    no_checkout = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    assert run(fresh / "bin" / "foreloom", "--version", cwd=elsewhere, env=no_checkout).startswith("foreloom ")
    said = run(python, "-c", QUICKSTART, cwd=elsewhere, env=no_checkout)
    codes = [line.split()[1:] for line in said.splitlines() if line.startswith("::")]
    assert codes[:-1] == [
        [verb, "0"] for verb in ("show", "show", "forecast", "train", "evaluate", "forecast", "report")
    ], said
    assert codes[-1] == ["evaluate", "2"]
    assert "quickstart " in said and "m4_hourly" in said
    assert (
        (elsewhere / "first.csv").is_file()
        and (elsewhere / "forecast.csv").is_file()
        and (elsewhere / "runs" / "quickstart" / "report.html").is_file()
    )
    manifest = json.loads((elsewhere / "runs/quickstart/checkpoints/final/manifest.json").read_text())
    assert manifest["step"] == 2
