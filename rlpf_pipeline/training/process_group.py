"""A command with all that it starts, as a process group of its own that outlives nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

GRACE_SECONDS = 20.0


@contextmanager
def process_group(
    command: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command; its group ends with the context, however that ends: an interrupt ends the group, and so does
    a kill of this process, by way of a shell that waits for our end of a pipe to close.

    log: where what it prints goes, instead of this process's output.
    """
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        with leash(process.pid):
            yield process
    finally:
        end_group(process)


@contextmanager
def leash(group: int) -> Iterator[None]:
    """The process group may live while this process does: it is killed when this one dies inside the context."""
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", f"read line || kill -s KILL -- -{group}"], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        watcher.communicate(b"done\n")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the group: SIGINT first, so that a job can leave its error file, then SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
