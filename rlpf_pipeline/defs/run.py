"""`rlpf run`: the whole asset graph in this process, with the instance that the web UI shows, one line per stage.

rlpf run --profile tiny
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter
from sqlalchemy.exc import DatabaseError

from rlpf_pipeline.artifacts import tells_of_full_disk
from rlpf_pipeline.defs.stages import STAGES
from rlpf_pipeline.errors import QUERY_INTERRUPTED, UserError
from rlpf_pipeline.settings import Settings
from rlpf_pipeline.whole_files import locked, write_atomically

DAGSTER_SETTINGS = Path(__file__).with_name("dagster.yaml")
"""A link to the project's own, which a wheel carries as a file."""
ROOM = 2**20
"""Bytes that Dagster's tables need: where less is free, SQLite tells of an error of input or output."""
STARTED_HERE = {"rlpf/started_by": "rlpf run"}
Say = Callable[[str], None]


def run_everything(settings: Settings, say: Say) -> bool:
    """Materialise all assets; True when every one succeeded or was skipped.

    Raises UserError where a step found the user's input at fault, KeyboardInterrupt where one was interrupted.
    """
    from rlpf_pipeline.definitions import defs

    os.environ["RLPF_PROFILE"] = settings.profile
    os.environ["RLPF_DATA"] = "\n".join(str(path) for path in settings.data)
    with only_run(settings), open_instance(settings) as instance:
        forget_killed_runs(instance)
        run_id = str(uuid.uuid4())
        instance.add_event_listener(run_id, Narrator(say))
        result = defs.resolve_job_def("rlpf_pipeline").execute_in_process(
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=instance,
            run_id=run_id,
            tags=STARTED_HERE,
            raise_on_error=False,
        )
    failed = result.get_step_failure_events()
    for event in failed:
        failure = event.step_failure_data
        if failure.error is not None and failure.error.cls_name == "DagsterExecutionStepExecutionError":
            cause = failure.error.cause
            if cause is not None and cause.cls_name == UserError.__name__:
                raise UserError(own_words(cause.message))
    if not result.success:
        where = ", ".join(str(event.step_key) for event in failed) or "no step of its own"
        interrupted = any(was_interrupted(event) for event in failed)
        end = f"The run was interrupted in {where}." if interrupted else f"The run failed in {where}, as said above."
        say(f"{end} What is done is kept: the next run goes on from there.")
        if interrupted:
            raise KeyboardInterrupt
    return result.success


@contextmanager
def open_instance(settings: Settings) -> Iterator[DagsterInstance]:
    """Dagster's instance in RLPF_HOME/dagster (DAGSTER_HOME), with the project's dagster.yaml.

    Raises UserError where its databases cannot be used.
    """
    home = settings.instance / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    require_room(home)
    write_atomically(home / "dagster.yaml", DAGSTER_SETTINGS.read_text(encoding="utf-8"))
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        with dg.DagsterInstance.get() as instance:
            yield instance
    except DatabaseError as error:
        if tells_of_full_disk(error):
            raise
        require_room(home)
        raise UserError(
            f"Dagster's record of runs in {home} cannot be used: {error.orig}. Close what else has it open; where it "
            "is damaged, move the folder away and run again: a new one is made, and only the history of runs is lost."
        ) from error


def require_room(home: Path) -> None:
    if shutil.disk_usage(home).free < ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def only_run(settings: Settings) -> AbstractContextManager[None]:
    """Hold the lock that one `rlpf run` of an RLPF_HOME has. Raises UserError where another one has it."""
    taken = f"Another run is working in {settings.instance}. Wait for its end, or stop it."
    return locked(settings.instance / "run.lock", taken)


def forget_killed_runs(instance: DagsterInstance) -> None:
    """Close the runs of an `rlpf run` that was killed: we hold the lock, so none of them lives.

    A re-execution in the UI has their tags; unlike them it comes from a code location.
    """
    unfinished = RunsFilter(tags=STARTED_HERE, statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING])
    for run in instance.get_runs(unfinished):
        if run.remote_job_origin is None:
            instance.report_run_failed(run, "The process of this run was killed.")


class Narrator:
    """Turns Dagster's events into lines: `(8/16) reward_model …`, then how it ended."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.started: dict[str, float] = {}
        self.reused: set[str] = set()
        self.kept: set[str] = set()

    def __call__(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None or event.step_key is None or was_interrupted(event):
            return
        name, kind = event.step_key, event.event_type
        if name not in STAGES:
            self.on_check(event)
        elif kind is DagsterEventType.STEP_START:
            self.started[name] = time.monotonic()
            self.say(f"({len(self.started)}/{len(STAGES)}) {name} …")
        elif kind is DagsterEventType.ASSET_MATERIALIZATION:
            self.kept.add(name)
            if event.materialization.metadata["reused"].value:
                self.reused.add(name)
        elif kind is DagsterEventType.STEP_SUCCESS:
            self.say(f"  {self.ending(name)}")
        elif kind is DagsterEventType.STEP_SKIPPED:
            self.say(f"{name} skipped, as what it reads was not made")
        elif kind is DagsterEventType.STEP_FAILURE:
            self.say(f"  failed: {reason_of(event.step_failure_data)}")

    def ending(self, name: str) -> str:
        if name in self.reused:
            return "unchanged"
        if name not in self.kept:
            from rlpf_pipeline.defs.steps import NO_EXPERIMENT

            return f"skipped: {NO_EXPERIMENT}"
        return f"done in {time.monotonic() - self.started[name]:.1f} s"

    def on_check(self, event: dg.DagsterEvent) -> None:
        if event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if not evaluation.passed:
                figures = ", ".join(f"{figure} {value.value}" for figure, value in evaluation.metadata.items())
                self.say(f"  check {evaluation.check_name} failed: {figures}")
        elif event.event_type is DagsterEventType.STEP_FAILURE and (failure := event.step_failure_data).error:
            self.say(f"  {event.step_key} failed: {reason_of(failure)}")


def was_interrupted(event: dg.DagsterEvent) -> bool:
    failure = event.step_failure_data if event.is_step_failure else None
    if failure is None or failure.error is None:
        return False
    by_dagster = failure.error.cls_name == dg.DagsterExecutionInterruptedError.__name__
    return by_dagster or reason_of(failure) == QUERY_INTERRUPTED


def reason_of(failure: object) -> str:
    """The message that the step itself gave, without Dagster's wrapping; of a UserError its own, not what led to it."""
    user_failure = getattr(failure, "user_failure_data", None)
    if user_failure is not None and user_failure.description:
        return str(user_failure.description)
    error = getattr(failure, "error", None)
    while error is not None and error.cause is not None and error.cls_name != UserError.__name__:
        error = error.cause
    return own_words(error.message) if error is not None else "no reason was given"


def own_words(message: str) -> str:
    """An exception's message without its class name."""
    return message.partition(": ")[2].strip() or message.strip()
