"""`accelerate launch`, with the exit code of what it started.

python -m rlpf_pipeline.training.accelerated --config_file gpu.yaml -m rlpf_pipeline.training.jobs.reward --config FILE

Of a single process that fails accelerate makes a traceback of its own, below the job's reason, and code 1; which signal
killed it would stand in that traceback alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import CalledProcessError

from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command, launch_command_parser

from rlpf_pipeline.training.run_config import INTERRUPTED, KILLED, MISTAKE


def main() -> None:
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
        sys.exit(2)
    try:
        launch_command(arguments)
    except CalledProcessError as error:
        sys.exit(error.returncode if error.returncode > 0 else KILLED - error.returncode)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
