"""Outputs that cannot be written are told by the name that was given, before the work."""

import os
from pathlib import Path

import pytest

from rlpf_pipeline_tests.abtest.experiment_data import experiment
from rlpf_pipeline_tests.cli.entry_point import rlpf

PLAN = ("ab-power", "--effect", "0.067", "--standard-error", "0.0299", "--advertisers", "34849")


def test_a_folder_in_the_output_s_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment(20, seed=1).to_csv(tmp_path / "data.csv", index=False)
    taken = [tmp_path / name for name in ("multitext_ads.parquet", "plan.json", "report.html")]
    commands = (
        ("simulate", "--advertisers", "2", "--output", str(tmp_path)),
        (*PLAN, "--output", str(taken[1])),
        ("ab-report", "--data", str(tmp_path / "data.csv"), "--output", str(tmp_path)),
    )
    for folder, command in zip(taken, commands, strict=True):
        folder.mkdir()
        assert rlpf(monkeypatch, *command) == 2
        assert capsys.readouterr() == ("", f"rlpf: The output {folder} is a folder. Choose another name.\n")


def test_a_report_is_not_written_over_its_data_or_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = Path("effects.csv")
    experiment(20, seed=1).to_csv(data, index=False)
    before = data.read_bytes()
    for given, output in (("effects.csv", "."), (str(tmp_path / "effects.csv"), ""), ("*.csv", str(tmp_path))):
        assert rlpf(monkeypatch, "ab-report", "--data", given, "--output", output) == 2
        what = "among the data *.csv" if "*" in given else f"replace the data {given}"
        said = f"rlpf: The report's effects.csv would {'be ' if '*' in given else ''}{what}. Choose another --output.\n"
        assert capsys.readouterr() == ("", said)
    assert data.read_bytes() == before


@pytest.mark.parametrize("folder", ["/proc/x", "/proc"])
def test_a_place_where_nothing_can_be_made_is_told(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment(20, seed=1).to_csv(tmp_path / "data.csv", index=False)
    for command in (
        ("simulate", "--advertisers", "2", "--output", folder),
        (*PLAN, "--output", f"{folder}/plan.json"),
        ("ab-report", "--data", str(tmp_path / "data.csv"), "--output", folder),
    ):
        assert rlpf(monkeypatch, *command) == 2
        assert "cannot be written: No such file or directory. Choose another folder" in capsys.readouterr().err


def test_a_pipe_is_not_replaced_by_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert rlpf(monkeypatch, *PLAN, "--output", str(tmp_path / "pipe")) == 2
    assert "is no file that can be replaced. Choose another name" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()
