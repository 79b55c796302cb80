"""What every job shares: read run.json, seed, report, publish the output folder, leave the reason of a failure.

What a job keeps beside its output to go on after a kill, under `.<name of the output>.…`, goes once that is published.

accelerate launch -m rlpf_pipeline.training.jobs.reward --config run.json
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import set_seed

from rlpf_pipeline.artifacts import Metrics, explained, publish, require_as_written
from rlpf_pipeline.errors import INTERRUPTED, UserError
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import CRASH, EXPECTS_GPU, EXPECTS_RANKS, MISTAKE, RunConfig
from rlpf_pipeline.whole_files import lock_of, locked, write_atomically

Work = Callable[[RunConfig, Path, Reporter], Metrics]


def run_job(work: Work, *, shards: bool = False) -> None:
    """Run `work(config, folder, reporter)`: it fills the temporary `folder` and returns the manifest's metrics.

    shards: whether it can divide a base among the ranks (sharding.py), where the launcher is configured for FSDP; what
    cannot has whole models on every rank.
    """
    if not shards:
        os.environ.pop("ACCELERATE_USE_FSDP", None)
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--config", type=Path, required=True, help="run.json, a RunConfig")
    path: Path = parser.parse_args().config
    rank = int(os.environ.get("RANK", "0"))
    quiet_libraries()
    try:
        config = RunConfig.read(path).as_it_stands()
        with explained(config.settings.home, config.inputs.values()):
            _run(work, config, rank)
    except UserError as error:
        leave(path.parent / MISTAKE.format(rank=rank), str(error))
        sys.exit(2)
    except Exception:
        leave(path.parent / CRASH.format(rank=rank), traceback.format_exc())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)  # whoever started the job says so


def leave(file: Path, reason: str) -> None:
    """For whoever started `accelerate launch`, which knows of its ranks only that one failed."""
    print(reason, file=sys.stderr, flush=True)
    with suppress(OSError, UserError):
        write_atomically(file, reason)


def _run(work: Work, config: RunConfig, rank: int) -> None:
    set_seed(config.settings.seed)
    be_deterministic()
    with Reporter(config.recipe.stage) as reporter:
        reporter.parameters(config.recipe.settings)
        require_device(reporter)
        require_ranks()
        require_tables(config)
        if rank != 0:
            with TemporaryDirectory() as scratch:
                work(config, Path(scratch), reporter)
            return
        with only_writer(config.output), publish(config.output, config.recipe) as (folder, metrics):
            metrics |= work(config, folder, reporter)
            reporter.metrics({k: v for k, v in metrics.items() if isinstance(v, float | int)})
        for kept in config.output.parent.glob(f".{config.output.name}.*/"):
            shutil.rmtree(kept)


def only_writer(output: Path) -> AbstractContextManager[None]:
    """Raises UserError where another job writes the same output."""
    return locked(lock_of(output), f"Another job is writing {output}. Wait for its end, or stop it.")


def require_tables(config: RunConfig) -> None:
    """Raises UserError where a table that is read is not what was written: it would be learned from without a word.
    Models are looked at where they are loaded."""
    for folder in config.inputs.values():
        require_as_written(folder, lambda file: file.suffix == ".parquet")


def require_device(reporter: Reporter) -> None:
    """Raises UserError where a GPU was asked for and there is none: accelerate would go on without a word."""
    if accelerator().device.type != "cpu":
        return
    if EXPECTS_GPU in os.environ:
        raise UserError(
            "RLPF_ACCELERATE asks for a GPU, and PyTorch sees none. Check the driver (nvidia-smi) and that PyTorch is "
            "built for CUDA (torch.version.cuda), or leave RLPF_ACCELERATE out to work on the CPU."
        )
    if torch.cuda.is_available():
        reporter.say("a GPU is here and not used; RLPF_ACCELERATE=gpu uses it (docs/accelerate.md)")


def require_ranks() -> None:
    """Raises UserError where fewer processes share the work than were asked for: of a configuration without GPUs
    accelerate starts one, without a word."""
    asked = int(os.environ.get(EXPECTS_RANKS, "1"))
    if asked > 1 and (ranks := accelerator().num_processes) < asked:
        raise UserError(
            f"RLPF_ACCELERATE asks for {asked} processes, and accelerate started {ranks}: for distributed_type "
            "MULTI_CPU or NO it starts no more. For ranks on a CPU write distributed_type: MULTI_GPU and set "
            "ACCELERATE_USE_CPU=true; else write num_processes: 1."
        )


def be_deterministic() -> None:
    """Equal inputs give equal bytes: kernels add up in a fixed order. PyTorch raises where it has no such kernel."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS first works
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory that it has not written, and filling it is thousands of launches a step on a GPU.
    torch.utils.deterministic.fill_uninitialized_memory = False


def quiet_libraries() -> None:
    """Leave the terminal to the reporter: progress bars of other libraries and notices of their future releases."""
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl)\.")


def accelerator() -> Accelerator:
    """The process's Accelerator; precision is the model's own (`models.base.compute_dtype`)."""
    return Accelerator(mixed_precision="no")
