"""Where a training job says how far it is: the terminal, MLflow and Dagster, from rank 0 only.

MLflow's run is made by whoever started the job (MLFLOW_RUN_ID); Dagster listens through Pipes when it started it.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from dagster_pipes import PipesContext, open_dagster_pipes

if TYPE_CHECKING:
    from mlflow import MlflowClient

PRINT_EVERY = 2.0
SEND_EVERY = 10.0
WORTH_SAYING = 0.01
"""Share of texts or originals that a setting does harm to, above which a job says so."""


class Reporter:
    """Reports one job; use as a context manager. Silent on ranks other than 0."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.speaks = int(os.environ.get("RANK", "0")) == 0
        self.phase()
        self._printed = self._sent = -math.inf
        self._pipes: PipesContext | None = None
        self._mlflow_run = os.environ.get("MLFLOW_RUN_ID")

    def __enter__(self) -> Reporter:
        if self.speaks and "DAGSTER_PIPES_CONTEXT" in os.environ:
            self._pipes = open_dagster_pipes()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._track(lambda client, run: client.set_terminated(run, "FAILED" if kind else "FINISHED"))
        if self._pipes:
            self._pipes.close()

    def say(self, message: str) -> None:
        """One line to the terminal and to Dagster's event log."""
        if self.speaks:
            print(f"  {self.stage} · {message}", flush=True)
            if self._pipes:
                self._pipes.log.info(message)

    def parameters(self, values: Mapping[str, object]) -> None:
        """Settings of the run, flattened with dots, to MLflow."""
        if self.speaks and self._mlflow_run:
            from mlflow.entities import Param

            params = [Param(key, str(value)) for key, value in _flat(values)]
            self._track(lambda client, run: client.log_batch(run, params=params))

    def phase(self, done: int = 0) -> None:
        """Start measuring rate and time left anew; done: of what `progress` counts, what was done before."""
        self._phase_started, self._done_before = time.monotonic(), done

    def progress(
        self, done: int, total: int, unit: str = "steps", rate: tuple[float, str] | None = None, **metrics: float
    ) -> None:
        """`done` of `total` with the latest metrics; `rate` = (how many so far, of what) where that is not `unit`, in
        proportion to `done`."""
        if not self.speaks:
            return
        now = time.monotonic()
        elapsed = max(now - self._phase_started, 1e-9)
        if now - self._printed >= PRINT_EVERY or done == total:
            self._printed = now
            amount, what = rate or (done, unit)
            since = done - self._done_before
            figures = "".join(f" · {name} {value:.4g}" for name, value in metrics.items())
            line = f"{unit} {done}/{total}{figures}"
            if since:
                speed = _speed(amount * since / done / elapsed)
                line += f" · {speed} {what}/s · {_clock(elapsed / since * (total - done))} left"
            print(f"  {self.stage} · {line}", flush=True)
            if self._pipes and (now - self._sent >= SEND_EVERY or done == total):
                self._sent = now
                self._pipes.log.info(line)
        self.metrics(metrics, done)

    def part(self, before: int, total: int, unit: str) -> Callable[[int], None]:
        """Hears how much of a part is done, where `before` of `total` were done before it."""
        return lambda done: self.progress(before + done, total, unit)

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Figures at a step, to MLflow; what is not finite is left out, since its store refuses it."""
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if self.speaks and self._mlflow_run and finite:
            from mlflow.entities import Metric

            stamp = int(time.time() * 1000)
            figures = [Metric(name, value, stamp, step) for name, value in finite.items()]
            self._track(lambda client, run: client.log_batch(run, metrics=figures))

    def _track(self, log: Callable[[MlflowClient, str], None]) -> None:
        """Log to MLflow's run, if there is one; a store that fails is left alone, and what is trained is kept."""
        if not (self.speaks and self._mlflow_run):
            return
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)  # it is told below, in a line
        try:
            log(MlflowClient(), self._mlflow_run)
        except Exception as error:  # of MLflow, of SQLAlchemy, of the file system: whatever its store is
            self._mlflow_run = None
            self.say(f"MLflow takes no more figures, so the job goes on without: {root_of(error)}")


def _flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, value in values.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return rows


def _speed(a_second: float) -> str:
    return f"{a_second:.1f}" if a_second >= 1 else f"{a_second:.2g}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def root_of(error: BaseException) -> BaseException:
    """The first of what led to it: of a database's error, the database's own words."""
    while before := error.__cause__ or error.__context__:
        error = before
    return error
