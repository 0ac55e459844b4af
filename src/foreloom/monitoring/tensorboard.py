"""TensorBoard: event files in `<run_dir>/tensorboard`, and over FLOPs in `tensorboard/by_flops`."""

from __future__ import annotations

from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from foreloom.monitoring.scalars import by_flops
from foreloom.monitoring.trackers import Session

FLOPS_UNIT = 1e9
"""TensorBoard's axis is of whole numbers: `by_flops/` tags count GFLOPs."""


class TensorBoard:
    """Writes event files. Points of an earlier session from `first_step` on are hidden.

    The second axis has a folder of its own because hiding works by folder.
    """

    name = "tensorboard"

    def __init__(self, session: Session) -> None:
        folder = session.run_dir / "tensorboard"
        is_new = session.first_step <= 1
        purge_gflops = int(session.flops / FLOPS_UNIT) + 1
        self._steps = SummaryWriter(str(folder), purge_step=None if is_new else session.first_step)
        self._flops = SummaryWriter(str(folder / "by_flops"), purge_step=None if is_new else purge_gflops)
        for path in session.files:
            self._steps.add_text(path.name, f"```\n{path.read_text(encoding='utf-8')}```", session.first_step - 1)

    def scalars(self, step: int, flops: float, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._steps.add_scalar(tag, value, step)
        for tag, value in by_flops(values).items():
            self._flops.add_scalar(tag, value, int(flops / FLOPS_UNIT))
        self._steps.flush()
        self._flops.flush()

    def close(self) -> None:
        self._steps.close()
        self._flops.close()
