"""`accelerate launch`, with the exit code of what it started.

python -m rlpf_pipeline.training.accelerated --config_file gpu.yaml -m rlpf_pipeline.training.jobs.reward --config FILE

Of a single process that fails accelerate makes a traceback of its own, below the job's reason, and code 1; which signal
killed it would stand in that traceback alone.
"""

from __future__ import annotations

import sys
from subprocess import CalledProcessError

from accelerate.commands.launch import launch_command, launch_command_parser

from rlpf_pipeline.training.run_config import KILLED


def main() -> None:
    try:
        launch_command(launch_command_parser().parse_args())
    except CalledProcessError as error:
        sys.exit(error.returncode if error.returncode > 0 else KILLED - error.returncode)


if __name__ == "__main__":
    main()
