"""Weights & Biases: one run of theirs a run folder, over all its sessions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import wandb

from foreloom.monitoring.scalars import by_flops
from foreloom.monitoring.trackers import Session


class WeightsAndBiases:
    """Logs to the project; files in `<run_dir>/wandb`. `WANDB_MODE=offline` keeps all of it there, for `wandb sync`.

    `step` and `flops` are values of each point and the x-axes of the charts, because W&B refuses points behind the
    newest, which a run resumed from an earlier step makes.
    """

    name = "wandb"

    def __init__(self, session: Session) -> None:
        run_id = session.known_id(self.name) or uuid.uuid4().hex[:12]
        session.keep_id(self.name, run_id)
        self._run = wandb.init(
            project=session.project,
            name=session.run_dir.resolve().name,
            dir=str(session.run_dir),
            id=run_id,
            resume="allow",
            config=dict(session.recipe),
            allow_val_change=True,
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("flops", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self._run.define_metric("by_flops/*", step_metric="flops")
        for path in session.files:
            self._run.save(str(path), base_path=str(session.run_dir), policy="now")

    def scalars(self, step: int, flops: float, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, "flops": flops, **values, **by_flops(values)})

    def close(self) -> None:
        self._run.finish()
