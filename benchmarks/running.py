"""What benchmarks share: entries in processes of their own, and files of results."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from rlpf_pipeline.artifacts import write_atomically


def result_of(child: str, *words: str) -> dict[str, Any]:
    """The JSON that Python code prints last, given these words, in a process of its own; `failed`: why it did not."""
    done = subprocess.run([sys.executable, "-c", child, *words], capture_output=True, text=True)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "Error" in line or "Exception" in line]
        return {"failed": said[-1] if said else f"ended with code {done.returncode} (out of memory?)"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_results(path: Path, **results: object) -> None:
    """As JSON, with the processor's name."""
    write_atomically(path, json.dumps({"machine": processor(), **results}, indent=2) + "\n")


def processor() -> str:
    """Its name, as Linux knows it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
