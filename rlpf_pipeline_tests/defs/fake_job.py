"""A job for the launcher's tests: publishes its output like the real ones, fails, or is killed half-way."""

import argparse
import os
import signal
import sys
from pathlib import Path

from rlpf_pipeline.artifacts import publish
from rlpf_pipeline.training.run_config import CRASH, EXPECTS_GPU, EXPECTS_RANKS, MISTAKE, RunConfig

parser = argparse.ArgumentParser()
parser.add_argument("--config", type=Path)
path = parser.parse_args().config
config = RunConfig.read(path)
print("fake · it begins …", flush=True)
output = config.output.with_name(f"{config.output.name}{os.environ.get('RANK', '')}")
with publish(output, config.recipe) as (folder, metrics):
    (folder / "weights.txt").write_text("half")
    if config.options["end"] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.options["end"] == "launcher killed":
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    if config.options["end"] == "second rank killed":
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    if config.options["end"] == "fails":
        (path.parent / CRASH.format(rank=0)).write_text("Traceback …\nValueError: the loss is not finite")
        sys.exit(1)
    if config.options["end"] == "is mistaken":
        (path.parent / MISTAKE.format(rank=0)).write_text("No ad has two texts.")
        sys.exit(2)
    if config.options["end"] == "well, beside another that is refused":
        (path.parent / MISTAKE.format(rank=0)).write_text("Another job is writing the output.")
    (folder / "weights.txt").write_text("whole")
    metrics |= {"accuracy": 0.75, "expects_gpu": EXPECTS_GPU in os.environ, "expects_ranks": os.environ[EXPECTS_RANKS]}
