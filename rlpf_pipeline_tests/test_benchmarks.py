"""What the command lines of benchmarks say of mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from benchmarks.running import among, as_command
from rlpf_pipeline.errors import UserError


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (UserError("There is no such model."), "There is no such model."),
        (FileNotFoundError(2, "No such file or directory", "runs/a.json"), "runs/a.json does not exist."),
        (subprocess.CalledProcessError(2, ["entry"], stderr="There is no base x.\n"), "There is no base x."),
    ],
)
def test_a_mistake_is_told_in_a_line(
    mistake: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise mistake

    monkeypatch.setattr(sys, "argv", ["benchmark"])
    with pytest.raises(SystemExit) as ended:
        as_command(main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(says)
    assert said.count("\n") == 1


def test_an_entry_that_there_is_none_of_is_refused() -> None:
    assert among(("ours", "theirs"))(["ours"]) == ["ours"]
    with pytest.raises(typer.BadParameter, match=r"There is no their\. Choose of: ours; theirs\."):
        among(("ours", "theirs"))(["their"])


def test_a_home_without_a_run_is_told_by_its_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.study_algorithms", "--home", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 2
    assert "runs/adllama/run.json is no run configuration: No such file or directory. `rlpf run` writes" in done.stderr
    assert "Traceback" not in done.stderr
