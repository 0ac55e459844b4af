"""Writes benchmarks/zero_shot.yaml: a task for every data set of a pack, by what its meta.yaml says.

    python benchmarks/zero_shot_tasks.py ../shared/data > benchmarks/zero_shot.yaml
    python benchmarks/zero_shot_tasks.py ../shared/data development > benchmarks/zero_shot_development.yaml
    python benchmarks/zero_shot_tasks.py ../shared/data report > benchmarks/zero_shot_report.yaml

A data set is a folder with data.parquet and meta.yaml. Horizon and season are those of its meta.yaml: of the published
protocol (Chronos, M competitions, LTSF, EPF) where there is one. One window ends each series. A set of fewer than 20
targets gets as many windows a series as make 20, one horizon apart, unless Chronos scores it on one. Variates are
forecast one by one, without covariates. A set whose horizons differ by frequency is a task a frequency; sets that are
published as a pool are pooled; series that another set holds too are left out.

The halves: recipes may be chosen by the scores of development, and entries are scored on report. A hash of a name's
first word says which half a set is in, so that sets of one origin are in one. Sets that share series with others
(`foreloom data audit` of each against all) are in development, whatever the hash says: what has been looked at there
cannot be unseen.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

LEAST_WINDOWS = 20
WITHOUT_FREQUENCY = {"prediction_length": 8, "season_length": 1}
"""Of the series of tsdl that state no frequency, on which its meta.yaml is silent: as m3_other, which states none."""
CHRONOS_ETTM_OFFSET = -96
"""ETTm is forecast from a day before its end; meta.yaml says so in words."""
HALVES = ("development", "report")
SHARES_SERIES = ("m1_", "fred_md", "us_employment")
"""m3_monthly has 102 overlaps with m1_monthly, m3_quarterly 45 with m1_quarterly; annual means of fred_md and
us_employment lie in m3_yearly. The hash has M3 in development."""
FOUND_ELSEWHERE = {
    "tsdl": "017 019 062 102 113 116 123 151 157 195 223_1 223_2 223_3 223_7 223_8 434 436 458 497 513 514 515 568 "
    "634_1 634_2 634_3 634_7 634_8"
}
"""Series that the audit found in other sets, beside those that meta.yaml names: rescaled, as means, with the sign
turned (exchange rates)."""
HEADING = """\
# Every data set of the data pack, forecast by a model that has seen none of them: {num_tasks} tasks of {num_sets} data
# sets. Written by zero_shot_tasks.py, which says how horizons, seasons and windows are chosen; --data-root is the pack.
# Not independent of each other: ETTh and ETTm (every fourth row of the one is the other).
tasks:
"""
HEADING_OF_HALF = """\
# The {half} half of zero_shot.yaml, {num_tasks} tasks, as zero_shot_tasks.py says, which wrote it.
tasks:
"""


def half_of(name: str) -> str:
    """The half that the data set of this name is in."""
    if name.startswith(SHARES_SERIES):
        return HALVES[0]
    origin = re.match(r"ETT|[a-z]+[0-9]*", name)
    assert origin is not None
    return HALVES[int(hashlib.sha256(origin[0].encode()).hexdigest(), 16) % 2]


def metas(root: Path) -> list[dict[str, Any]]:
    """What meta.yaml says of every data set below `root`, by name."""
    folders = sorted(path.parent for path in root.glob("*/meta.yaml") if (path.parent / "data.parquet").exists())
    return [{**yaml.safe_load((folder / "meta.yaml").read_text()), "folder": folder.name} for folder in folders]


def tasks(root: Path) -> list[dict[str, Any]]:
    """The tasks, in the order of names; ValueError where a pool's members disagree."""
    pools: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for meta in metas(root):
        pools[meta.get("chronos_pooled", {}).get("name", meta["folder"])].append(meta)
    return [task for name in sorted(pools) for task in _tasks_of(name, pools[name])]


def _tasks_of(name: str, members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    meta = members[0]
    horizon, season = meta["prediction_length"], meta["season_length"]
    if any((other["prediction_length"], other["season_length"]) != (horizon, season) for other in members):
        raise ValueError(f"{name}: its members differ in horizon or season.")
    paths = [f"{member['folder']}/data.parquet" for member in members]
    task: dict[str, Any] = {"name": name, "path": paths if len(paths) > 1 else paths[0]}
    known = {item for ids in meta.get("overlaps", {}).get("ids", {}).values() for item in ids}
    left_out = sorted(known | {f"{name}{number}" for number in FOUND_ELSEWHERE.get(name, "").split()})
    if isinstance(horizon, dict):
        parts = {freq: {"prediction_length": horizon[freq], "season_length": season[freq]} for freq in horizon}
        parts |= {"none": WITHOUT_FREQUENCY} if name == "tsdl" else {}
        return [
            {**task, "name": f"{name}_{freq.split('-')[0]}", "freq": freq}
            | settings
            | ({"leave_out": left_out} if left_out else {})
            for freq, settings in parts.items()
        ]
    assert not left_out, "no set of one horizon has any today"
    task["prediction_length"] = horizon
    if not isinstance(season, dict):
        task["season_length"] = season
    elif len(season) > 1 and isinstance(meta["freq"], str):
        task["season_length"] = season[meta["freq"]]
    if name == "ETTm":
        task["offset"] = CHRONOS_ETTM_OFFSET
    num_targets = sum(member["n_series"] * member["n_variates"] for member in members)
    is_published = "chronos" in meta or "chronos_pooled" in meta
    if num_targets < LEAST_WINDOWS and not is_published:
        task["num_rolls"] = -(-LEAST_WINDOWS // num_targets)
    return [task]


def write(root: Path, half: str | None = None) -> str:
    """The text of the tasks file, or of that of one half."""
    listed = [task for task in tasks(root) if half is None or half_of(task["name"]) == half]
    lines = [yaml.safe_dump(task, default_flow_style=True, sort_keys=False, width=10**6).strip() for task in listed]
    heading = HEADING if half is None else HEADING_OF_HALF
    text = heading.format(num_tasks=len(listed), num_sets=len(metas(root)), half=half)
    return text + "".join(f"  - {line}\n" for line in lines)


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), *sys.argv[2:]), end="")
