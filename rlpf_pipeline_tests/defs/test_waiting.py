"""What two runs of one RLPF_HOME share is held by one at a time, and by none that was killed."""

import subprocess
import sys
from collections.abc import Callable
from threading import Thread

import dagster as dg
import pytest

from rlpf_pipeline.defs.checks import table_checks
from rlpf_pipeline.defs.resources import PipelineSettings, TrainingLauncher
from rlpf_pipeline.settings import Settings

HOLDS = """
import sys, time
from pathlib import Path
from rlpf_pipeline.defs.building import alone, only_job
from rlpf_pipeline.defs.stages import folder_of
from rlpf_pipeline.profiles import load_settings

settings = load_settings("tiny", (), Path(sys.argv[1]))
with {what}:
    print("held", flush=True)
    time.sleep(600)
"""


def train(settings: Settings) -> None:
    assert TrainingLauncher().build(dg.build_asset_context(), settings, "reward_model").reused


def check(settings: Settings) -> None:
    """Fails, as no table is there, once the warehouse is free."""
    asset = dg.asset(lambda: None, name="preference_pairs")
    pipeline = PipelineSettings(profile="tiny")
    made = [asset, table_checks("preference_pairs")]
    assert not dg.materialize(made, resources={"pipeline": pipeline}, raise_on_error=False).success


@pytest.mark.parametrize(
    ("what", "step", "says"),
    [
        ("only_job(settings)", train, "Waiting for a job of another run to end"),
        ('alone(folder_of("reward_model", settings))', train, "Waiting for another process that makes"),
        ("alone(settings.warehouse)", check, "Waiting for another process that makes"),
    ],
)
def test_a_step_waits_for_another_process_and_for_none_that_was_killed(
    what: str,
    step: Callable[[Settings], None],
    says: str,
    everything_built: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RLPF_HOME", str(everything_built.instance))
    command = [sys.executable, "-c", HOLDS.format(what=what), str(everything_built.instance)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waiting = Thread(target=step, args=(everything_built,))
        waiting.start()
        said = ""
        while says not in said and waiting.is_alive():
            waiting.join(0.1)
            said += capsys.readouterr().err
        holder.kill()
        waiting.join()
    assert says in said
