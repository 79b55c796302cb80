"""What we start ends with us: with the context, and with this process."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from rlpf_pipeline.training.process_group import leash

REPOSITORY = str(Path(__file__).parents[2])

PARENT_OF_A_SLEEPER = """
import os, time
from rlpf_pipeline.training.process_group import process_group
with process_group(["sleep", "60"], os.environ) as sleeper:
    print(sleeper.pid, flush=True)
    time.sleep(60)
"""


def test_a_killed_parent_takes_its_group_along() -> None:
    command = [sys.executable, "-c", PARENT_OF_A_SLEEPER]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert parent.stdout is not None
    sleeper = int(parent.stdout.readline())
    assert is_alive(sleeper)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while is_alive(sleeper) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(sleeper)


def test_leaving_the_leash_spares_the_group() -> None:
    sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        with leash(sleeper.pid):
            pass
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
