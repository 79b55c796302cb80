"""Artifacts: a folder and its `manifest.json`, published whole or not at all, and reused while nothing changed.

A stage's output folder is written under a temporary name beside its final one and renamed when it is complete, so
a killed step leaves nothing half-written where others look. The manifest holds the stage's recipe (settings, code
and input digests); a folder whose manifest holds the same recipe need not be built again. It also holds the digest of
every file, by which a damaged one is found.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ValidationError

from rlpf_pipeline.digests import digest_of, file_digest, known_digest
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import faults_of
from rlpf_pipeline.whole_files import flush, remove, write_atomically

MANIFEST = "manifest.json"
MAKERS = (
    "accelerate",
    "duckdb",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "scipy",
    "statsmodels",
    "torch",
    "transformers",
    "trl",
)
"""Packages whose other versions may give other bytes."""
FULL = (
    os.strerror(errno.ENOSPC),
    os.strerror(errno.EDQUOT),
    "database or disk is full",
    "No usable temporary directory",
    "max_temp_directory_size",
)
"""What the system, SQLite, Python's tempfile and DuckDB say of a full disk, whichever library passes it on."""

DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says of a place that this account may not use."""

Metric = float | int | str | bool | None
Metrics = dict[str, Metric]


class Recipe(BaseModel):
    """What determines an artifact: equal recipes give equal artifacts."""

    stage: str
    settings: dict[str, object] = {}
    inputs: dict[str, str] = {}
    code: str = ""


class Manifest(BaseModel):
    recipe: Recipe
    files: dict[str, str] = {}
    metrics: Metrics = {}
    versions: dict[str, str] = {}
    """Of Python and MAKERS. They are told, and make nothing anew: who upgrades a library decides what to delete."""

    @property
    def digest(self) -> str:
        """Identity of the content: of the files alone, or of the recipe where there are none."""
        return digest_of(self.files or self.recipe.model_dump(mode="json"))


@cache
def versions(packages: tuple[str, ...] = MAKERS) -> dict[str, str]:
    """Of Python and of the packages."""
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def read_manifest(folder: Path) -> Manifest | None:
    """None where there is none. Raises UserError where it is damaged."""
    path = whole(folder) / MANIFEST
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} is damaged ({faults_of(error)}). Restore it, or move its folder away and make it again."
        ) from error


def require_as_written(folder: Path, matters: Callable[[Path], bool] = lambda path: True) -> None:
    """Raise UserError unless the files that matter are what the folder's manifest says, if it has one."""
    manifest = read_manifest(folder)
    for name, digest in manifest.files.items() if manifest else ():
        path = whole(folder) / name
        if matters(path) and (not path.is_file() or known_digest(path) != digest):
            what = "is not what was written" if path.is_file() else "is missing"
            raise UserError(
                f"{path} {what}: {folder} is damaged, or was changed. Copy it anew, or remove it and make it again."
            )


def is_current(folder: Path, recipe: Recipe) -> bool:
    """Whether `folder` was completely built by this very recipe and its files are still there."""
    manifest = read_manifest(folder)
    return (
        manifest is not None and manifest.recipe == recipe and all((folder / name).is_file() for name in manifest.files)
    )


@contextmanager
def publish(folder: Path, recipe: Recipe) -> Iterator[tuple[Path, Metrics]]:
    """Yield a fresh temporary folder and a dict for metrics; on success write the manifest and rename it to `folder`.

    On an exception nothing appears under the final name and the former content stays.
    """
    building = building_of(folder)
    remove(building)
    building.mkdir(parents=True)
    metrics: Metrics = {}
    yield building, metrics
    files = {str(p.relative_to(building)): file_digest(p) for p in sorted(building.rglob("*")) if p.is_file()}
    manifest = Manifest(recipe=recipe, files=files, metrics=metrics, versions=versions())
    write_atomically(building / MANIFEST, manifest.model_dump_json(indent=2))
    swap_into_place(building, folder)


@contextmanager
def explained(home: Path, inputs: Iterable[Path]) -> Iterator[None]:
    """Turns what is no fault of a stage, whichever library passes it on, into a UserError: a full disk, a home of
    another account, and an input that is not what was written."""
    try:
        yield
    except Exception as error:
        if tells_of_full_disk(error):
            for building in home.rglob(".*.building"):
                remove(building)
            raise UserError(
                f"The disk of {home} is full, or that of temporary files (TMPDIR). What was complete is as it was "
                "before. Free some space, or set RLPF_HOME (or TMPDIR) to a larger disk, and run again."
            ) from error
        if denied := denied_place(error, home.parent):
            raise UserError(
                f"This account may not use {denied}. Give it the right to read and write all of {home.parent} (chown, "
                "where another account made it), or set RLPF_HOME to a folder of its own."
            ) from error
        if not isinstance(error, UserError):
            for folder in inputs:
                require_as_written(folder)
        raise


def tells_of_full_disk(error: Exception) -> bool:
    return any(words in str(error) for words in FULL)


def denied_place(error: Exception, instance: Path) -> str | None:
    """The place below `instance` that this account may not use, where the error tells of one."""
    if not isinstance(error, OSError) or error.errno not in DENIED or not error.filename:
        return None
    return str(error.filename) if Path(error.filename).is_relative_to(instance) else None


def swap_into_place(building: Path, folder: Path) -> None:
    """Rename `building` to `folder`; a kill between the two renames leaves the former content where `whole` says."""
    for path in (*building.rglob("*"), building):
        flush(path)
    former = former_of(folder)
    if folder.exists():
        remove(former)
        folder.rename(former)
    building.rename(folder)
    remove(former)


def whole(folder: Path) -> Path:
    """Where the last content published as `folder` is."""
    former = former_of(folder)
    return former if former.is_dir() and not folder.is_dir() else folder


def building_of(folder: Path) -> Path:
    return hidden_beside(folder, "building")


def former_of(folder: Path) -> Path:
    return hidden_beside(folder, "former")


def hidden_beside(folder: Path, what: str) -> Path:
    """Of a folder that is hidden itself too: `.model.checkpoint` becomes `.model.checkpoint.former`, which goes with
    all that a job kept beside its model."""
    return folder.with_name(f".{folder.name.removeprefix('.')}.{what}")


def clear(folder: Path) -> None:
    """Remove what a killed process was building as `folder`, and what it had replaced and not yet removed."""
    remove(building_of(folder))
    if folder.exists():
        remove(former_of(folder))


def subset(model: BaseModel, *names: str) -> Mapping[str, object]:
    """The named sections of a settings model, as plain data for a recipe."""
    return {name: model.model_dump(mode="json", include={name})[name] for name in names}
