"""MLflow: the run of a training asset is made here, before the job starts; rank 0 of the job logs to it and ends it.

A store that fails is told of and done without: what is trained does not depend on it.

mlflow takes seconds and hundreds of megabytes to import, so it is imported only where a job really runs.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ValidationError

from rlpf_pipeline.artifacts import tells_of_full_disk
from rlpf_pipeline.defs.launcher import run_folder
from rlpf_pipeline.defs.stages import manifest_of
from rlpf_pipeline.settings import Settings
from rlpf_pipeline.training.reporter import root_of
from rlpf_pipeline.whole_files import write_atomically

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW_SERVER = "http://127.0.0.1:5000"


class TrackedRun(BaseModel):
    """Where the run that made a stage's output lies in MLflow; kept beside its run.json. made: digest of the output."""

    run_id: str
    experiment_id: str
    made: str = ""

    @property
    def url(self) -> str:
        return f"{MLFLOW_SERVER}/#/experiments/{self.experiment_id}/runs/{self.run_id}"


class Tracking(NamedTuple):
    settings: Settings

    @property
    def ui_command(self) -> str:
        return f"mlflow ui --backend-store-uri {self.settings.mlflow_uri}"

    def start(self, name: str, tags: dict[str, str]) -> TrackedRun | None:
        """Make the run (RUNNING) in the experiment named like the profile; makes the store where there is none,
        and restores an experiment that was deleted. None, with a word, where the store takes no run.

        One job runs at a time (`only_job`), of whichever profile, so runs of jobs that are still RUNNING were killed,
        and are marked so.
        """
        try:
            return self._made(name, tags)
        except Exception as error:  # of MLflow, of SQLAlchemy, of the file system: whatever its store is
            if tells_of_full_disk(error):
                raise
            store = self.settings.instance / "mlflow.db"
            print(
                f"MLflow's store {store} takes no run, so {name} goes on without: {root_of(error)}. "
                "Close what else has it open; where it is damaged, move it away and the next run makes a new one; "
                f"where it is of an older MLflow, `mlflow db upgrade {self.settings.mlflow_uri}` renews it.",
                file=sys.stderr,
                flush=True,
            )
            return None

    def _made(self, name: str, tags: dict[str, str]) -> TrackedRun:
        from mlflow.entities import ViewType

        client = self._client()
        experiment = client.get_experiment_by_name(self.settings.profile)
        if experiment is None:
            artifacts = (self.settings.instance / "mlflow-artifacts" / self.settings.profile).as_uri()
            experiment_id = client.create_experiment(self.settings.profile, artifact_location=artifacts)
        else:
            experiment_id = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment_id)
        abandoned = "attributes.status = 'RUNNING' AND tags.`dagster.asset_key` LIKE '%'"
        profiles = [experiment.experiment_id for experiment in client.search_experiments(ViewType.ALL)]
        for run in client.search_runs(profiles, abandoned):
            client.set_terminated(run.info.run_id, "KILLED")
        run = client.create_run(experiment_id, run_name=name, tags=tags)
        return TrackedRun(run_id=run.info.run_id, experiment_id=experiment_id)

    def environment(self, tracked: TrackedRun | None) -> dict[str, str]:
        """Variables by which a job finds its run."""
        return {"MLFLOW_TRACKING_URI": self.settings.mlflow_uri, "MLFLOW_RUN_ID": tracked.run_id} if tracked else {}

    def fail(self, tracked: TrackedRun) -> None:
        """Mark the run. A store that fails or was removed meanwhile is left alone: the job's own error is what to
        tell."""
        with suppress(Exception):
            self._client().set_terminated(tracked.run_id, "FAILED")

    def keep(self, name: str, tracked: TrackedRun | None) -> None:
        """The run, or none, as the one that made the stage's output."""
        if tracked:
            made = tracked.model_copy(update={"made": manifest_of(name, self.settings).digest})
            write_atomically(self._path(name), made.model_dump_json())
        else:
            self._path(name).unlink(missing_ok=True)

    def last(self, name: str) -> TrackedRun | None:
        """The run that was kept; none where its file is gone or damaged (it is a link and no more), or where the output
        is no longer what it made: of a job that was killed before its run was kept, or by `rlpf train`."""
        try:
            kept = TrackedRun.model_validate_json(self._path(name).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return kept if kept.made == manifest_of(name, self.settings).digest else None

    def _path(self, name: str) -> Path:
        return run_folder(name, self.settings) / "mlflow.json"

    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)
        return MlflowClient(tracking_uri=self.settings.mlflow_uri)
