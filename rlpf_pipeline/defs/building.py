"""A stage's output, built unless it is up to date: a folder, or a table of the warehouse and a marker for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from rlpf_pipeline.artifacts import Manifest, Metrics, clear, explained, is_current, publish
from rlpf_pipeline.defs.stages import STAGES, Stage, folder_of, inputs_of, manifest_of, recipe_of
from rlpf_pipeline.settings import Settings
from rlpf_pipeline.whole_files import lock_of, locked, remove


class Outcome(NamedTuple):
    """What a stage left behind; `reused` when nothing had to be done."""

    stage: Stage
    folder: Path
    manifest: Manifest
    reused: bool


def build(name: str, settings: Settings, work: Callable[[Path], Metrics]) -> Outcome:
    """Run `work(folder)`, which fills a temporary folder and returns metrics, unless the stage is up to date."""
    with alone(folder_of(name, settings)) as folder:
        recipe = recipe_of(name, settings)
        if is_current(folder, recipe):
            return outcome_of(name, settings, reused=True)
        inputs = inputs_of(name, settings).values()
        with explained(settings.home, inputs), publish(folder, recipe) as (building, metrics):
            metrics |= work(building)
        return outcome_of(name, settings, reused=False)


def build_table(name: str, settings: Settings, work: Callable[[], Metrics]) -> Outcome:
    """The same for a table of the warehouse: the folder holds a manifest only.

    The former manifest is set aside before the table changes: a killed step must not leave it beside another table. A
    step that fails has left its tables as they were.
    """
    with alone_with_warehouse(settings):
        folder, recipe = folder_of(name, settings), recipe_of(name, settings)
        if is_current(folder, recipe):
            return outcome_of(name, settings, reused=True)
        inputs = inputs_of(name, settings).values()
        with set_aside(folder), explained(settings.home, inputs), publish(folder, recipe) as (_, metrics):
            metrics |= work()
        return outcome_of(name, settings, reused=False)


@contextmanager
def alone(output: Path) -> Iterator[Path]:
    """Waits until no other process is here with the same output: what one adds, the next one finds. What a killed one
    was building, or had replaced, goes, also where nothing is built now."""
    with locked(lock_of(output), f"Waiting for another process that makes {output} …", waits=True):
        clear(output)
        yield output


@contextmanager
def alone_with_warehouse(settings: Settings) -> Iterator[Path]:
    """The same for the warehouse. Where its file is gone, no manifest of a table in it holds: those go too."""
    with alone(settings.warehouse) as path:
        if not path.is_file():
            remove(settings.home / "warehouse")
        yield path


def only_job(settings: Settings) -> AbstractContextManager[None]:
    """Waits until no other job of the RLPF_HOME runs: each holds a model in memory."""
    return locked(settings.instance / "job.lock", "Waiting for a job of another run to end …", waits=True)


@contextmanager
def set_aside(folder: Path) -> Iterator[None]:
    """Without `folder` inside; an exception brings it back."""
    aside = folder.with_name(f".{folder.name}.aside")
    remove(aside)
    if folder.is_dir():
        folder.rename(aside)
    try:
        yield
    except BaseException:
        if aside.is_dir():
            aside.rename(folder)
        raise
    remove(aside)


def outcome_of(name: str, settings: Settings, reused: bool) -> Outcome:
    return Outcome(STAGES[name], folder_of(name, settings), manifest_of(name, settings), reused)
