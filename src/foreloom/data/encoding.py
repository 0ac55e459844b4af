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
        (table,) = _by_target(past_code_L, target_VL[0], np.array([0, len(past_L)]), unseen + 1)
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


def encode_many(
    past_T: np.ndarray, target_T: np.ndarray, starts: np.ndarray, future_NH: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """`encode` of N series of one target at once; series n has the steps starts[n]:starts[n + 1] of T.

    `past_T` and `future_NH` are labels, as objects; None is missing.
    """
    import pandas as pd

    code_T, categories = pd.factorize(past_T)
    missing = len(categories)
    table_NC = _by_target(np.where(code_T < 0, missing, code_T), target_T, starts, missing + 2)
    series_T = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    past = table_NC[series_T, np.where(code_T < 0, missing, code_T)]
    if future_NH is None:
        return past, None
    flat = future_NH.ravel()
    code = pd.Index(categories).get_indexer(pd.Index(flat, dtype=object))
    code = np.where(pd.isna(flat), missing, np.where(code < 0, missing + 1, code)).reshape(future_NH.shape)
    return past, np.take_along_axis(table_NC, code, axis=1)


def _by_target(code_T: np.ndarray, target_T: np.ndarray, starts: np.ndarray, num_codes: int) -> np.ndarray:
    """(mean + sum) / (1 + count) of the observed targets of each series and code, (N, num_codes)."""
    num_series = len(starts) - 1
    series_T = np.repeat(np.arange(num_series), np.diff(starts))
    target_T = np.asarray(target_T, dtype=np.float64)
    observed_T = np.isfinite(target_T)
    values, series = target_T[observed_T], series_T[observed_T]
    with np.errstate(invalid="ignore"):
        mean_N = np.bincount(series, weights=values, minlength=num_series) / np.bincount(series, minlength=num_series)
    key = series * num_codes + code_T[observed_T]
    sums = np.bincount(key, weights=values, minlength=num_series * num_codes).reshape(num_series, num_codes)
    counts = np.bincount(key, minlength=num_series * num_codes).reshape(num_series, num_codes)
    return (mean_N[:, None] + sums) / (1 + counts)


def _labels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values as text, and which are missing."""
    if values.dtype.kind in "US":
        return values.astype(str), np.zeros(len(values), dtype=bool)
    missing = np.array([v is None or v != v for v in values.tolist()], dtype=bool)
    return np.array(["" if gone else str(v) for v, gone in zip(values.tolist(), missing, strict=True)], str), missing
