"""The verb `foreloom data fetch`: brings the data sets of a suite, tells what it would bring, or checks them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foreloom.evaluation.suites import load
from foreloom.evaluation.suites.fetch import choose, fetch, fetch_entries, plan_fetch, verify

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def fetch_and_print(
    suite: str | Path,
    out: Path,
    *,
    only: Sequence[str] = (),
    dry_run: bool = False,
    check: bool = False,
    overwrite: bool = False,
    hub: HfApi | None = None,
) -> bool:
    """Fetch the data sets of a suite (`only`: those named) into `out`; True when all are there and whole.

    `dry_run` prints what is missing with its size, `check` reads what is there and compares checksums: both download
    nothing. Raises ValueError for an unknown suite or data set and whatever `fetch` raises.
    """
    from huggingface_hub import HfApi

    if dry_run + check + overwrite > 1:
        raise ValueError("--dry-run, --verify and --overwrite exclude one another: give one of them.")
    if out.is_file():
        raise ValueError(f"{out} is a file; --out names the data root, a folder, which need not exist yet.")
    entries = choose(fetch_entries(load(suite)), only)
    if check:
        checked = verify(entries, out)
        _print(checked.lines())
        return len(checked.whole) == len(entries)
    hub = hub or HfApi(library_name="foreloom")
    if dry_run:
        plan = plan_fetch(entries, out, hub=hub)
        _print(plan.lines())
        return not plan.refused
    report = fetch(entries, out, overwrite=overwrite, hub=hub, say=lambda line: _print([line]))
    _print(report.lines())
    return not report.failed


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, flush=True)
