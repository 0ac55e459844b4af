"""Our third approach beside the package `chinchilla` from PyPI, in turns on the same points: CPU time and the sum of
Huber losses (1e-3, log residuals) that each reaches from 54 starts; and our bootstrap.

    OMP_NUM_THREADS=1 python benchmarks/scaling_fits.py svg_extracted_data.csv --drop-worst 5
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from pathlib import Path

from foreloom.lab.fit.parametric import DELTA, NAMES, ParametricFit, bootstrap, fit_parametric, objective_at
from foreloom.lab.fit.points import Points, read_points

GRID = {"e": (0.0, 0.5), "a": (5.0, 10.0, 15.0), "b": (5.0, 10.0, 15.0), "alpha": (0.3, 0.5, 1.0), "beta": (0.5,)}
"""54 starts in Hoffmann et al.'s ranges."""


def peer(points: Points) -> dict[str, float]:
    """The constants that the package finds."""
    import chinchilla

    huber = functools.partial(chinchilla._metrics.log_huber, delta=DELTA)
    with tempfile.TemporaryDirectory() as folder:
        found = chinchilla.Chinchilla(project_dir=folder, param_grid=GRID, loss_fn=huber, log_level=50)
        for N, D, loss in zip(points.N_P, points.D_P, points.L_P, strict=True):
            found.database.append(N=N, D=D, loss=loss)
        found.visualizer.optim = lambda *_, **__: None  # a picture is not what is timed
        found.fit(parallel=False)
        return {name: float(getattr(found, name)) for name in NAMES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--drop-worst", type=int, default=0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--bootstrap", type=int, default=200)
    options = parser.parse_args()
    points = read_points(options.csv).drop_worst(options.drop_worst)
    arrays = points.N_P, points.D_P, points.L_P
    fit = fit_parametric(*arrays)
    seconds: dict[str, list[float]] = {"foreloom": [], "chinchilla": []}
    constants: dict[str, float] = {}
    for _ in range(options.turns):
        began = time.process_time()
        fit = fit_parametric(*arrays)
        seconds["foreloom"].append(time.process_time() - began)
        began = time.process_time()
        constants = peer(points)
        seconds["chinchilla"].append(time.process_time() - began)
    theirs = ParametricFit(**constants, objective=0, loss="huber", delta=DELTA, num_points=len(points), num_starts=54,
                           num_hits=0, converged=True, at_bound=(), seconds=0)  # fmt: skip
    for name, one in (("foreloom", fit), ("chinchilla", theirs)):
        told = ", ".join(f"{constant} {getattr(one, constant):.6g}" for constant in NAMES)
        cost = statistics.median(seconds[name])
        print(f"{name}: {cost:.2f} s of CPU, objective {objective_at(one, *arrays):.9g}; {told}")
    print(f"foreloom: {fit.num_hits} of {fit.num_starts} starts at the optimum")
    began = time.process_time()
    drawn = bootstrap(fit, *arrays, num=options.bootstrap)
    took = time.process_time() - began
    print(f"bootstrap of {len(drawn)}: {took:.2f} s of CPU, {1000 * took / len(drawn):.1f} ms a set")


if __name__ == "__main__":
    main()
