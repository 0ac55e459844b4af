"""MLflow: one run of theirs a run folder, over all its sessions."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from foreloom.config.loader import flatten
from foreloom.monitoring.scalars import by_flops
from foreloom.monitoring.trackers import Session

FLOPS_UNIT = 1e9
"""MLflow's axis is of whole numbers: `by_flops/` metrics count GFLOPs."""
MOST_PARAMS = 100
"""MLflow takes so many in one request."""
MOST_CHARACTERS = 500
"""Of a parameter, in the oldest stores."""


class MLflow:
    """Logs to the server of MLFLOW_TRACKING_URI; without it, to a data base and a folder in the run folder.

    Of a resumed run MLflow keeps the points that are made twice, and the parameters of its first session.
    """

    name = "mlflow"

    def __init__(self, session: Session) -> None:
        folder = session.run_dir.resolve() / "mlflow"
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{folder / 'mlflow.db'}"
            artifacts = (folder / "artifacts").as_uri()
        else:
            artifacts = None
        self._client = MlflowClient(tracking_uri=uri)
        self._run_id = session.known_id(self.name) or self._create(session, artifacts)
        session.keep_id(self.name, self._run_id)
        self._client.update_run(self._run_id, status="RUNNING")
        known = self._client.get_run(self._run_id).data.params
        params = [
            Param(key, str(value)[:MOST_CHARACTERS])
            for key, value in flatten(session.recipe).items()
            if key not in known
        ]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._run_id, params=params[first : first + MOST_PARAMS])
        for path in session.files:
            self._client.log_artifact(self._run_id, str(path))

    def _create(self, session: Session, artifacts: str | None) -> str:
        experiment = self._client.get_experiment_by_name(session.project)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(session.project, artifact_location=artifacts)
        )
        run = self._client.create_run(experiment_id, run_name=session.run_dir.resolve().name)
        return run.info.run_id

    def scalars(self, step: int, flops: float, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(tag, value, now, step) for tag, value in values.items()]
        metrics += [Metric(tag, value, now, int(flops / FLOPS_UNIT)) for tag, value in by_flops(values).items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)
