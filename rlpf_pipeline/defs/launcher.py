"""Starting a training job: `run.json`, `accelerate launch`, and an end to all its processes when the step ends.

`launch` needs no Dagster: `rlpf train` uses it as it is, and the Dagster resource passes it the Pipes variables.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rlpf_pipeline.defs.stages import STAGES, folder_of, inputs_of, recipe_of
from rlpf_pipeline.errors import JobFailed, UserError
from rlpf_pipeline.package import PACKAGE
from rlpf_pipeline.settings import Settings
from rlpf_pipeline.training.process_group import process_group
from rlpf_pipeline.training.run_config import (
    CRASH,
    EXPECTS_GPU,
    EXPECTS_RANKS,
    KILLED,
    MISTAKE,
    RunConfig,
    as_in_shells,
)
from rlpf_pipeline.whole_files import write_atomically
from rlpf_pipeline.yaml_files import loaded

ERROR_TAIL_LINES = 30
TO_BE_WRITTEN = "ADDRESS"
"""Stands in a shipped configuration for what only its user knows."""


def run_folder(name: str, settings: Settings) -> Path:
    return settings.home / "runs" / name


def write_run_config(name: str, settings: Settings) -> Path:
    """Write the stage's `run.json`; returns its path."""
    stage = STAGES[name]
    config = RunConfig(
        settings=settings,
        recipe=recipe_of(name, settings),
        inputs=inputs_of(name, settings),
        output=folder_of(name, settings),
        options=dict(stage.options),
    )
    path = run_folder(name, settings) / "run.json"
    write_atomically(path, config.model_dump_json(indent=2))
    return path


def accelerate_config() -> Path:
    """RLPF_ACCELERATE: a shipped configuration by name (training/accelerate), or a file; by default `cpu`.

    Raises UserError where it is neither, cannot be read, or is to be copied and filled in.
    """
    chosen = os.environ.get("RLPF_ACCELERATE") or "cpu"
    shipped = {path.stem: path for path in (PACKAGE / "training" / "accelerate").glob("*.yaml")}
    path = shipped.get(chosen, Path(chosen))
    if not path.is_file():
        raise UserError(
            f"RLPF_ACCELERATE names no file: {path}. Choose one of {', '.join(sorted(shipped))}, or name a file; "
            "`accelerate config --config_file FILE` writes one."
        )
    if content_of(path).get("main_process_ip") == TO_BE_WRITTEN:
        raise UserError(
            f"{path} is for several machines: copy it to each, write the first one's address for {TO_BE_WRITTEN} and "
            "the machine's number as machine_rank, and name the copy in RLPF_ACCELERATE."
        )
    return path


def content_of(config: Path) -> dict[str, Any]:
    """Raises UserError where it is no accelerate configuration."""
    try:
        content: dict[str, Any] = loaded(config.read_text(encoding="utf-8"))
        counts = [content.get(name, 1) for name in ("num_machines", "num_processes")]
        fits = all(type(count) is int and count > 0 for count in counts)
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        fits = False
    if not fits:
        raise UserError(
            f"RLPF_ACCELERATE names {config}, which is no accelerate configuration: lines such as `num_processes: 2`. "
            "`accelerate config --config_file FILE` writes one."
        )
    return content


def threads_of_a_process(config: Path) -> int:
    """The cores that this process may use, shared by the job's processes."""
    import joblib  # heavy, for a command line that starts no job

    settings = content_of(config)
    machines, processes = settings.get("num_machines", 1), settings.get("num_processes", 1)
    return max(1, int(joblib.cpu_count() * machines // processes))


def is_for_gpus(config: Path) -> bool:
    """Whether jobs under it must find a GPU; with ACCELERATE_USE_CPU=true they are ranks on a CPU instead."""
    overruled = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    return not (overruled or content_of(config).get("use_cpu"))


def launch(module: str, run_config: Path, environment: Mapping[str, str]) -> None:
    """Run the job to its end; its lines go to this process's output. Raises JobFailed, and the job's own UserError.

    The job leads a process group of its own, which ends with this call, however that ends.
    """
    config, folder = accelerate_config(), run_config.parent
    for old in (*left_by_ranks(CRASH, folder), *left_by_ranks(MISTAKE, folder)):
        old.unlink(missing_ok=True)
    accelerate = [sys.executable, "-m", "rlpf_pipeline.training.accelerated", "--config_file", str(config)]
    threads = ["--num_cpu_threads_per_process", str(threads_of_a_process(config))]
    command = [*accelerate, *threads, "-m", module, "--config", str(run_config)]
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": ":replace", **environment}
    if is_for_gpus(config):
        variables[EXPECTS_GPU] = "1"
    variables[EXPECTS_RANKS] = str(content_of(config).get("num_processes", 1))
    with process_group(command, variables) as process:
        code = as_in_shells(process.wait())
    if code == 0:
        return  # a reason that lies there is of a job that was refused meanwhile
    if mistakes := left_by_ranks(MISTAKE, folder):
        raise UserError(mistakes[0].read_text(encoding="utf-8"))
    raise JobFailed(f"{reason(folder, code)}\nTo repeat it: {shlex.join(command)}")


def left_by_ranks(file: str, folder: Path) -> list[Path]:
    return sorted(folder.glob(file.format(rank="*")))


def reason(folder: Path, code: int) -> str:
    """What the job's ranks wrote before they ended, shortened to its end."""
    said = []
    for path in left_by_ranks(CRASH, folder):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        said.append("\n".join([f"{path.name}:", *lines[-ERROR_TAIL_LINES:]]))
    signals = {KILLED + one: one.name for one in signal.Signals}
    end = f"was killed by {signals[code]}, perhaps for lack of memory" if code in signals else f"ended with code {code}"
    return "\n".join(said) or (
        f"The job {end}, and left no reason. Its output above, or in the step's logs, may say more."
    )
