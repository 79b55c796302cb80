"""Files that are written whole or not at all: under a temporary name, and renamed when they are complete.

Also what such a file may replace, and locks that end with their process. Folders: artifacts.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from rlpf_pipeline.errors import UserError


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


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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


def link_or_copy(source: Path, target: Path) -> None:
    """The same content under a second name: a hard link, or a copy on a file system that has none."""
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        shutil.copyfile(source, target)


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


def flush(path: Path) -> None:
    """Have a file or folder on the disk: a rename may outlive a power cut that what it names does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.lock")


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
