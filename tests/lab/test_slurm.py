"""A study on a cluster: the scripts, and a scheduler on the PATH that really starts them."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foreloom.cli import app
from foreloom.lab.slurm import submission
from foreloom.lab.study.study import Study, read_study
from foreloom.launch.profile import read_profile

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
RECIPE = f"""
model: {{family: chronos2, size: test, d_model: 32, d_kv: 8, d_ff: 64, num_heads: 4}}
data: {{sources: [{{path: {DATA}/us_births.parquet, holdout: 32}}], context_length: 48, prediction_length: 16}}
training: {{steps: 4, batch_size: 8, device: cpu}}
"""
STUDY = "study: five\nrecipe: base.yaml\ngrid: {seed: [1, 2, 3, 4, 5]}\n"
STAND_IN = """
import json, os, sys
from foreloom.lab import runs
from foreloom.lab.runs import Outcome

def train(run, stop, earlier=None, *, resume=False):
    with open(os.environ["TRAINED"], "a") as file:
        file.write(json.dumps([run.name, os.environ.get("SLURM_ARRAY_TASK_ID")]) + "\\n")
    return Outcome(run.name, "", [], "", "finished")

runs.train = train
from foreloom.cli import main
sys.argv[0] = "foreloom"
main()
"""
SBATCH = """#!/bin/bash
# Starts every task of an array at once, and waits for them; numbers its jobs.
cat > "$JOBS/script"
echo "$@" >> "$JOBS/arguments"
number=$(wc -l < "$JOBS/arguments")
array=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$JOBS/script")
cp "$JOBS/script" "$JOBS/$number.sh"
if [ -n "$array" ]; then
    for index in $(seq 0 "$array"); do
        SLURM_ARRAY_JOB_ID=$number SLURM_ARRAY_TASK_ID=$index bash "$JOBS/$number.sh" > "$JOBS/$index.log" 2>&1 &
    done
    wait
fi
echo "$number;cluster"
"""


@pytest.fixture
def study(tmp_path) -> Path:
    (tmp_path / "base.yaml").write_text(RECIPE)
    (tmp_path / "five.yaml").write_text(STUDY)
    return tmp_path / "five.yaml"


def jobs_of(study: Path, profile: str = "", **options):
    path = study.with_name("profile.yaml")
    path.write_text(profile)
    return submission(
        str(study), ["steps=3"], read_study(study).resolve(), study.parent / "r", read_profile(path), **options
    )


def options_of(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.M))


def test_scripts(study, tmp_path):
    profile = (
        "slurm: {partition: long, account: lab, memory: 32G, time: '24:00:00', cpus: 4, directives: [--exclusive], "
        "setup: ['module load cuda', 'source env/bin/activate'], command: python -m foreloom, save_seconds: 90}"
    )
    jobs = jobs_of(study, profile, num_tasks=50)
    found = options_of(jobs.array)
    assert found["array"] == "0-49%8" and found["gres"] == "gpu:1" and found["cpus-per-task"] == "4"
    assert (found["partition"], found["account"], found["mem"], found["time"]) == ("long", "lab", "32G", "24:00:00")
    assert "requeue" in found and found["signal"] == "B:USR1@90" and "exclusive" in found
    assert "module load cuda\nsource env/bin/activate\npython -m foreloom lab run" in jobs.array
    assert jobs.warnings == ("50 tasks for 5 runs: 45 have nothing to do.",)
    assert f"lab fit {tmp_path}/r/five" in jobs.analysis
    for script in (jobs.array, jobs.analysis):
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert done.returncode == 0 and not done.stderr
    assert options_of(jobs_of(study).array)["array"] == "0-4%5"  # as many as there are runs
    assert "gres" not in options_of(jobs_of(study, "studies: {gpus_per_process: 0}").array)


def test_two_gpus_a_run(study):
    recipe = str(study.with_name("base.yaml"))
    given = {"recipe": recipe, "steps": 3, "num_processes": 2}
    planned = Study("s", tuple(("s", f"a{i}", given) for i in range(10))).resolve()
    profile = read_profile(None)
    found = options_of(submission("s", [], planned, Path("r"), profile).array)
    assert found["gres"] == "gpu:2" and found["array"] == "0-9%4"  # the same GPUs at a time
    (warning,) = submission("s", [], planned, Path("r"), profile, num_at_once=5).warnings
    assert warning == "5 tasks at a time of 2 GPUs are 10, above 8."
    mixed = [*planned, *Study("s", (("s", "b", {"recipe": recipe, "steps": 3}),)).resolve()]
    with pytest.raises(ValueError, match="submit them as two studies"):
        submission("s", [], mixed, Path("r"), profile)


def test_every_run_is_trained_once_by_a_scheduler_that_starts_them(study, tmp_path, monkeypatch):
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(SBATCH)
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    study.with_name("profile.yaml").write_text(f"slurm: {{command: {sys.executable} {tmp_path}/stand_in.py}}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    monkeypatch.setenv("JOBS", str(jobs))
    monkeypatch.setenv("TRAINED", str(tmp_path / "trained.jsonl"))
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["lab", "submit", str(study), "--profile", "profile.yaml", "-2"])
    assert told.exit_code == 0, told.output
    assert "submitted 5 runs as job 1, and their analysis as job 2 behind it" in told.output
    assert (jobs / "arguments").read_text().splitlines() == ["--parsable", "--parsable --dependency=afterany:1"]
    trained = [tuple(json.loads(line)) for line in (tmp_path / "trained.jsonl").read_text().splitlines()]
    logs = [path.read_text() for path in jobs.glob("*.log")]
    assert sorted(trained) == [("seed=1", "0"), ("seed=2", "1"), ("seed=3", "0"), ("seed=4", "1"), ("seed=5", "0")], (
        logs
    )


def test_a_task_whose_time_is_up_stops_its_run_and_is_requeued(study, tmp_path):
    """And one that is cancelled is not."""
    script = jobs_of(study, "slurm: {command: bash stand_in.sh}").array.replace(f"cd {Path.cwd()}", f"cd {tmp_path}")
    (tmp_path / "stand_in.sh").write_text(
        "trap 'sleep 0.3; echo saved; exit 143' TERM\necho ready\nfor i in $(seq 200); do sleep 0.05; done\n"
    )
    (tmp_path / "scontrol").write_text("#!/bin/bash\necho requeued $2\n")
    (tmp_path / "scontrol").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "7"}
    for name, said in (("USR1", "ready\nsaved\nrequeued 7_3\n"), ("TERM", "ready\nsaved\n")):
        process = subprocess.Popen(["bash", "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout and process.stdout.readline() == "ready\n"
        subprocess.run(["kill", f"-{name}", str(process.pid)], check=True)
        rest = process.communicate(timeout=30)[0]
        assert "ready\n" + rest == said and process.returncode == 143
    # Signals that come before the run has begun.
    for name, said in (("USR1", "requeued 7_3\n"), ("TERM", "")):
        profile = f"slurm: {{setup: ['kill -{name} $$'], command: bash stand_in.sh}}"
        script = jobs_of(study, profile).array.replace(f"cd {Path.cwd()}", f"cd {tmp_path}")
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30)
        assert done.stdout.removeprefix("ready\n").removeprefix("saved\n") == said and done.returncode == 143


def test_a_profile_that_is_wrong_and_a_machine_without_slurm(study, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"profile\.yaml:1: slurm\.partitoin: unknown setting\. Did you mean partition"
    ):
        jobs_of(study, "slurm: {partitoin: x}")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["lab", "submit", str(study)])
    assert "there is no sbatch on this machine" in str(told.exception)
