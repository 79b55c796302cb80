"""What the command lines of benchmarks say of mistakes."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer

from benchmarks import study_suggestions
from benchmarks.running import among, as_command
from rlpf_pipeline.contracts import SUGGESTIONS
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


def test_what_suggestions_do_not_tell_is_left_blank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two texts of an original, none of them finished: nothing to rank, and no difference by what does not vary."""
    rows = pd.DataFrame(
        {column.name: pd.Series([None] * 4, dtype=object) for column in SUGGESTIONS.columns}
        | {
            "ad_id": ["a", "a", "b", "b"],
            "policy": "adllama",
            "original": "Fresh bread",
            "text": ["Bread", "Rolls", "Cake", "Buns"],
            "finished": False,
            "reward": [0.1, 0.2, 0.1, 0.4],
            "reward_spread": 0.5,
            "relevance": 1.0,
            "planted_ctr": [0.01, 0.02, 0.01, 0.03],
        }
    )
    rows.to_parquet(tmp_path / "suggestions.parquet")
    study_suggestions.main([tmp_path / "suggestions.parquet"])
    said = capsys.readouterr().out
    assert "nan" not in said
    assert "– (–)" in said
    (tmp_path / "other.parquet").write_text("no Parquet")
    with pytest.raises(UserError, match=r"other\.parquet is no suggestions\.parquet of a policy evaluation"):
        study_suggestions.main([tmp_path / "other.parquet"])
