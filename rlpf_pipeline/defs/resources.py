"""The resources: the profile's settings, and the launcher of training jobs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster import PipesTempFileContextInjector, PipesTempFileMessageReader, open_pipes_session
from pydantic import Field

from rlpf_pipeline.artifacts import explained, is_current
from rlpf_pipeline.defs.building import Outcome, alone, only_job, outcome_of
from rlpf_pipeline.defs.launcher import launch, write_run_config
from rlpf_pipeline.defs.stages import STAGES, folder_of, recipe_of
from rlpf_pipeline.defs.tracking import Tracking
from rlpf_pipeline.errors import JobFailed
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import Settings


@contextmanager
def pipes_session(context: dg.AssetExecutionContext) -> Iterator[dg.PipesSession]:
    """A Pipes session through temporary files, without the preview warning that Dagster gives for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        with open_pipes_session(context, PipesTempFileContextInjector(), PipesTempFileMessageReader()) as session:
            yield session


class PipelineSettings(dg.ConfigurableResource):
    """Which profile, and which files. What is left empty comes from RLPF_PROFILE and RLPF_DATA; another profile than
    RLPF_PROFILE's has none of its files."""

    profile: str = ""
    data: list[str] = Field(default_factory=list)

    def load(self) -> Settings:
        files = tuple(Path(p).resolve() for p in self.data) or None
        of_environment = os.environ.get("RLPF_PROFILE") or self.profile
        if self.profile not in ("", of_environment) and not files:
            files = ()
        return load_settings(self.profile or None, files)


class TrainingLauncher(dg.ConfigurableResource):
    """Runs a stage's job under `accelerate launch`, with Dagster Pipes and an MLflow run.

    Dagster's PipesSubprocessClient would interrupt accelerate alone and orphan the training process, so the session is
    opened here and `launcher.launch` starts and ends the whole process group.
    """

    dagster_ui: str = "http://127.0.0.1:3000"

    def build(self, context: dg.AssetExecutionContext, settings: Settings, name: str) -> Outcome:
        """Run the job unless the stage is up to date, which an `rlpf train` of it may make it: that is waited for.
        Raises dagster.Failure with what the job said, or its UserError."""
        with only_job(settings), explained(settings.home, ()):
            with alone(folder_of(name, settings)) as folder:
                current = is_current(folder, recipe_of(name, settings))
            if current:
                return outcome_of(name, settings, reused=True)
            self._run(context, settings, name)
        return outcome_of(name, settings, reused=False)

    def _run(self, context: dg.AssetExecutionContext, settings: Settings, name: str) -> None:
        run_config = write_run_config(name, settings)
        tracking = Tracking(settings)
        tracked = tracking.start(
            name,
            tags={
                "dagster.run_id": context.run_id,
                "dagster.asset_key": context.asset_key.to_user_string(),
                "dagster.run_url": f"{self.dagster_ui}/runs/{context.run_id}",
            },
        )
        try:
            with pipes_session(context) as session:
                environment = {**tracking.environment(tracked), **session.get_bootstrap_env_vars()}
                launch(STAGES[name].job, run_config, environment)
        except BaseException as error:
            if tracked:
                tracking.fail(tracked)
            if isinstance(error, JobFailed):
                found = {"mlflow_run_id": tracked.run_id} if tracked else {}
                raise dg.Failure(description=str(error), metadata=found, allow_retries=False) from error
            raise
        tracking.keep(name, tracked)
