"""Artifacts: a folder and its `manifest.json`, published whole or not at all, and reused while nothing changed.

A stage's output folder is written under a temporary name beside its final one and renamed when it is complete, so
a killed step leaves nothing half-written where others look. The manifest holds the stage's recipe (settings, code
and input digests); a folder whose manifest holds the same recipe need not be built again. It also holds the digest of
every file, by which a damaged one is found.
"""

from __future__ import annotations

import ast
import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile

from pydantic import BaseModel, ValidationError

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import faults_of

MANIFEST = "manifest.json"
PACKAGE = Path(__file__).parent
IS_INSTALLED = (PACKAGE / "sql").is_dir()
"""From a wheel, which carries `sql/` within the package; in the project it is beside it."""
SQL = PACKAGE / "sql" if IS_INSTALLED else PACKAGE.parent / "sql"
LOADED = (".json", ".safetensors", ".jinja", ".txt", ".model")
"""Suffixes of what is read of a model folder: weights, configurations, tokenizers."""
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


class Recipe(BaseModel):
    """What determines an artifact: equal recipes give equal artifacts."""

    stage: str
    settings: dict[str, object] = {}
    inputs: dict[str, str] = {}
    code: str = ""


class Manifest(BaseModel):
    recipe: Recipe
    files: dict[str, str] = {}
    metrics: dict[str, float | int | str | bool | None] = {}
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


def digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def model_digest(name: str) -> str | None:
    """Digest of what is read of the folder of a base model; None where the name is none: a hub's stays as it is."""
    files = [path for path in sorted(Path(name).glob("*")) if path.suffix in LOADED]
    return digest_of({path.name: known_digest(path) for path in files}) if files else None


def known_digest(path: Path) -> str:
    """`file_digest`, once in a process for a file that stays as it is: weights are large, and asked about often."""
    return _digest_as_of(path, path.stat().st_size, path.stat().st_mtime_ns)


@cache
def _digest_as_of(path: Path, size: int, modified: int) -> str:
    return file_digest(path)


def source_digest(*sources: str) -> str:
    """Digest of the project's own source: a module ("training/jobs/reward.py") with all that it imports of the package,
    directly or not; any other file; a folder with all its files ("report/templates"). "sql/…" is beside the package.

    settings.py stays out: the values of the settings are in the recipe.
    """
    files: set[Path] = set()
    waiting = [(SQL.parent if source.startswith("sql/") else PACKAGE) / source for source in sources]
    while waiting:
        path = waiting.pop()
        if path.is_dir():
            waiting += [file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]
        elif path not in files and path != PACKAGE / "settings.py":
            files.add(path)
            waiting += own_imports(path) if path.suffix == ".py" else []
    return digest_of({str(path.relative_to(PACKAGE.parent)): file_digest(path) for path in sorted(files)})


@cache
def own_imports(path: Path) -> list[Path]:
    """Files of the package that a module imports, inside its functions too: `import a.b`, `from a import b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = [PACKAGE.parent.joinpath(*name.split(".")) for name in names if name.split(".")[0] == PACKAGE.name]
    found = [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")]
    return sorted(file for file in found if file.is_file())


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
def publish(folder: Path, recipe: Recipe) -> Iterator[tuple[Path, dict[str, float | int | str | bool | None]]]:
    """Yield a fresh temporary folder and a dict for metrics; on success write the manifest and rename it to `folder`.

    On an exception nothing appears under the final name and the former content stays.
    """
    building = folder.with_name(f".{folder.name}.building")
    remove(building)
    building.mkdir(parents=True)
    metrics: dict[str, float | int | str | bool | None] = {}
    yield building, metrics
    files = {str(p.relative_to(building)): file_digest(p) for p in sorted(building.rglob("*")) if p.is_file()}
    manifest = Manifest(recipe=recipe, files=files, metrics=metrics, versions=versions())
    write_atomically(building / MANIFEST, manifest.model_dump_json(indent=2))
    swap_into_place(building, folder)


@contextmanager
def locked(path: Path, taken: str, *, waits: bool = False) -> Iterator[None]:
    """Hold the file's lock, which ends with its process, killed or not. taken: what is said where another process has
    it, before this one waits, or as a UserError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not waits:
                raise UserError(taken) from error
            print(taken, file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lock_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.lock")


@contextmanager
def explained(home: Path, inputs: Iterable[Path]) -> Iterator[None]:
    """Turns what is no fault of a stage, whichever library passes it on, into a UserError: a full disk, and an input
    that is not what was written."""
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
        if not isinstance(error, UserError):
            for folder in inputs:
                require_as_written(folder)
        raise


def tells_of_full_disk(error: Exception) -> bool:
    return any(words in str(error) for words in FULL)


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


def remove(folder: Path) -> None:
    """The folder, if there is one, also where folders in it are read-only: made so by hand, or copies of such. Of a
    symbolic link only the link."""
    if folder.is_symlink():
        folder.unlink()
        return
    for place, _, _ in os.walk(folder):
        with suppress(OSError):
            Path(place).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def whole(folder: Path) -> Path:
    """Where the last content published as `folder` is."""
    former = former_of(folder)
    return former if former.is_dir() and not folder.is_dir() else folder


def former_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.former")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield the name under which to write the file; on an exception nothing of it stays, and the former one does.

    Raises UserError where what has the name is no file; what the system says of the other name, it says of `path`.
    """
    require_replaceable(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        move_into_place(temporary, path)
    except OSError as error:
        if error.filename in (temporary, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def require_replaceable(path: Path) -> None:
    """Raises UserError where a rename to `path` would fail, or take a device's or a pipe's place (/dev/stdout)."""
    special = path.exists() and not path.is_file()
    if special or os.path.realpath(path.parent) == "/dev":
        what = "is a folder" if path.is_dir() else "is no file that can be replaced"
        raise UserError(f"The output {path} {what}. Choose another name.")


def require_writable(output: Path) -> None:
    """Raises UserError where no file can be written there. Makes the folder that it is in."""
    try:
        require_replaceable(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise UserError(f"The output {output} cannot be written: {error.strerror}. Choose another folder.") from error


def is_same(one: Path, other: Path) -> bool:
    """Whether both names lead to one place, also where they lead nowhere."""
    return os.path.realpath(one) == os.path.realpath(other)


def move_into_place(written: Path, path: Path) -> None:
    """Rename a complete file; the one it replaces is there until then."""
    flush(written)
    written.replace(path)


def flush(path: Path) -> None:
    """Have a file or folder on the disk: a rename may outlive a power cut that what it names does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """The same content under a second name: a hard link, or a copy on a file system that has none."""
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        shutil.copyfile(source, target)


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def subset(model: BaseModel, *names: str) -> Mapping[str, object]:
    """The named sections of a settings model, as plain data for a recipe."""
    return {name: model.model_dump(mode="json", include={name})[name] for name in names}
