"""`accelerate launch`, with the exit code of what it started.

python -m rlpf_pipeline.training.accelerated --config_file gpu.yaml -m rlpf_pipeline.training.jobs.reward --config FILE

Of a process that fails, or of the first of several ranks, accelerate makes a traceback of its own, below the job's
reason, and code 1; which signal killed it would stand in that traceback alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import CalledProcessError

from rlpf_pipeline.errors import INTERRUPTED
from rlpf_pipeline.training.run_config import MISTAKE, as_in_shells


def main() -> None:
    try:
        sys.exit(exit_code())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def exit_code() -> int:
    """Launch what the command line says. What takes seconds to import is imported here, where an interrupt is heard."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    arguments = launch_command_parser().parse_args()
    try:
        load_config_from_file(arguments.config_file)
    except (ValueError, TypeError) as error:
        from rlpf_pipeline.training.job import leave  # heavy, for what only passes a job on

        run_json = Path(arguments.training_script_args[-1])
        leave(
            run_json.with_name(MISTAKE.format(rank=0)),
            f"accelerate cannot read its configuration {arguments.config_file} (RLPF_ACCELERATE): {error} Mend it, or "
            "have `accelerate config --config_file FILE` write one.",
        )
        return 2
    try:
        launch_command(arguments)
    except CalledProcessError as error:
        return as_in_shells(error.returncode)
    except ChildFailedError as error:
        return as_in_shells(error.get_first_failure()[1].exitcode)
    except SignalException as error:
        return as_in_shells(-error.sigval)
    return 0


if __name__ == "__main__":
    main()
