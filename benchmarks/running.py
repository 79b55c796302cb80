"""What benchmarks share: their command lines, entries in processes of their own, and files of results."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import typer

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.whole_files import write_atomically

MISTAKEN = 2
"""Exit code of a mistake of the user's."""


def as_command(main: Callable[..., None]) -> None:
    """The command line of a benchmark, a function or a Typer app. A mistake of its user is told in a line, without a
    traceback, and ends with exit code 2; so does an entry in a process of its own that made one."""
    app = main
    if not isinstance(main, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command()(main)
    try:
        app()
    except UserError as error:
        sys.exit(told(error))
    except FileNotFoundError as error:
        if not error.filename:
            raise
        sys.exit(told(f"{error.filename} does not exist. Check the path, or make what the benchmark reads first."))
    except subprocess.CalledProcessError as error:
        if error.returncode != MISTAKEN:
            raise
        sys.exit(told(error.stderr.strip()) if error.stderr else MISTAKEN)


def among(known: Collection[str]) -> Callable[[list[str] | None], list[str] | None]:
    """The callback of an option that names some of these."""

    def chosen(names: list[str] | None) -> list[str] | None:
        if unknown := set(names or ()) - set(known):
            raise typer.BadParameter(f"There is no {', '.join(sorted(unknown))}. Choose of: {'; '.join(known)}.")
        return names

    return chosen


def told(mistake: object) -> int:
    print(mistake, file=sys.stderr)
    return MISTAKEN


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
