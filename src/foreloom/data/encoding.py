"""Categories as numbers: by what the target did where there is one target, by their order where there are several.

The encodings are Chronos-2's (chronos-forecasting 2.3) with one departure: they are fitted on the context alone, in
training too. The reference fits them on the whole series when it trains, so the steps to be forecast leak into inputs.

Axes: V targets, L context steps, H horizon steps.
"""

from __future__ import annotations

import numpy as np


def encode(
    past_L: np.ndarray, target_VL: np.ndarray, future_H: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Categories as float64, fitted on the past alone.

    One target: (mean + sum) / (1 + count) over the category's observed targets, `mean` that of the series; a category
    unseen in the past gets `mean`. Several targets: the category's place in sorted order, unseen is NaN. Missing
    (None or NaN) is a category of its own, the last.
    """
    past_labels, missing_L = _labels(past_L)
    categories, code_L = np.unique(past_labels[~missing_L], return_inverse=True)
    past_code_L = np.full(len(past_labels), len(categories))
    past_code_L[~missing_L] = code_L
    unseen = len(categories) + 1  # one place after "missing"
    if len(target_VL) == 1:
        target_L = np.asarray(target_VL[0], dtype=np.float64)
        observed_L = np.isfinite(target_L)
        mean = target_L[observed_L].mean() if observed_L.any() else np.nan
        codes, values = past_code_L[observed_L], target_L[observed_L]
        sums = np.bincount(codes, weights=values, minlength=unseen + 1)
        counts = np.bincount(codes, minlength=unseen + 1)
        table = (mean + sums) / (1 + counts)
    else:
        table = np.arange(unseen + 1, dtype=np.float64)
        table[unseen] = np.nan
        if not missing_L.any():
            table[len(categories)] = np.nan
    if future_H is None:
        return table[past_code_L], None
    future_labels, missing_H = _labels(future_H)
    place_H = np.searchsorted(categories, future_labels)
    known_H = place_H < len(categories)
    known_H[known_H] = categories[place_H[known_H]] == future_labels[known_H]
    future_code_H = np.where(known_H, place_H, unseen)
    future_code_H[missing_H] = len(categories)
    return table[past_code_L], table[future_code_H]


def _labels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values as text, and which are missing."""
    if values.dtype.kind in "US":
        return values.astype(str), np.zeros(len(values), dtype=bool)
    missing = np.array([v is None or v != v for v in values.tolist()], dtype=bool)
    return np.array(["" if gone else str(v) for v, gone in zip(values.tolist(), missing, strict=True)], str), missing
