"""What the host knows of a batch before the device sees it: which rows belong together, and is anything padded.

Rows are put in order once a forward, one-row groups first, then groups by size: each size is then one dense block
(groups, size) and group attention costs what the groups cost, not batch x batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from foreloom.models.common.transfer import to_device


@dataclass(frozen=True)
class Layout:
    """The order of rows for group attention."""

    num_single: int
    """Rows that are alone in their group; they come first."""
    blocks: tuple[tuple[int, int], ...]
    """(number of groups, rows of each) for every size above one, in the order the rows come."""
    order: Tensor | None = None
    """int64 (B,): row i of the ordered batch is row order[i] of the given one; None where they are the same."""
    inverse: Tensor | None = None
    """int64 (B,), undoes `order`."""
    grouped: bool = False
    """Is any row not alone? As a field, so that a compiled block asks this and not how many sizes there are."""
    all_observed: bool = False
    """True: every patch of every row has an observed step, so no mask is needed. False: not known."""


def layout_of(group_ids: np.ndarray | None, num_rows: int, device: torch.device, *, all_observed: bool) -> Layout:
    """Order the rows of a batch by their group ids, any integers (B,); None makes every row its own group."""
    if group_ids is None:
        return Layout(num_rows, (), all_observed=all_observed)
    _, group, group_size = np.unique(group_ids, return_inverse=True, return_counts=True)
    row_size = group_size[group]
    sizes, num_groups = np.unique(group_size, return_counts=True)
    blocks = tuple((int(n), int(size)) for n, size in zip(num_groups, sizes, strict=True) if size > 1)
    num_single = int((row_size == 1).sum())
    order = np.lexsort((group, row_size)) if blocks else np.arange(num_rows)
    if (order == np.arange(num_rows)).all():
        return Layout(num_single, blocks, grouped=bool(blocks), all_observed=all_observed)
    move = lambda index: to_device(index, device)
    return Layout(num_single, blocks, move(order), move(np.argsort(order)), bool(blocks), all_observed)
