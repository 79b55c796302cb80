"""The command line: help, exit codes, messages without tracebacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from rlpf_pipeline.cli import app
from rlpf_pipeline_tests.cli.entry_point import rlpf

COMMANDS = ("run", "ingest", "pairs", "train", "score", "generate", "ab-report", "ab-power", "simulate")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rlpf(monkeypatch, command, "--help") == 0
    assert f"Example: rlpf {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("run", "RLPF_PROFILE, or demo"),
        ("ingest", "production; upworthy for its format"),
        ("ingest", "link"),
        ("simulate", "the profile's"),
    ],
)
def test_help_tells_defaults_that_depend_on_something(
    command: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert rlpf(monkeypatch, command, "--help") == 0
    assert f"[default: ({shown})]" in capsys.readouterr().out


def test_all_commands_are_covered_here() -> None:
    assert set(COMMANDS) == set(get_command(app).commands)


def test_help_imports_nothing_heavy() -> None:
    heavy = ("dagster", "torch", "pandas", "duckdb")
    code = f"import sys, rlpf_pipeline.cli; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_an_unknown_profile_is_the_users_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rlpf(monkeypatch, "pairs", "--profile", "huge") == 2
    message = capsys.readouterr().err
    assert "Unknown profile 'huge'" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("folder", "said"), [("file", "File exists"), ("x" * 300, "File name too long"), ("circle/x", "Too many levels")]
)
def test_what_the_system_refuses_is_told_with_its_path(
    folder: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    assert rlpf(monkeypatch, "simulate", "--advertisers", "5", "--output", str(tmp_path / folder)) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"{tmp_path / folder}/multitext_ads.parquet cannot be written: {said}" in message


@pytest.mark.parametrize("command", [("ab-report", "--output", "r", "--data"), ("ab-power", "--data"), ("ingest",)])
def test_a_path_that_is_not_utf_8_is_the_users_to_rename(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = os.fsdecode(bytes(tmp_path) + b"/Ums\xe4tze.csv")
    Path(path).write_text("advertiser_id,arm,impressions,clicks\na,control,10,1\n")
    assert rlpf(monkeypatch, *command, path) == 2
    assert "tze.csv' is not UTF-8" in capsys.readouterr().err


def test_a_terminal_without_our_characters_has_others_in_their_place(tmp_path: Path) -> None:
    variables = {**os.environ, "PYTHONIOENCODING": "ascii", "RLPF_HOME": str(tmp_path / "häuser")}
    command = [sys.executable, "-m", "rlpf_pipeline.cli", "run", "--profile", "upworthy"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "h?user" in done.stdout
    assert "(1/16) raw_multitext_ads ?" in done.stdout


def test_ctrl_c_in_a_query_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def query_of_minutes(*files: object) -> None:
        raise RuntimeError("Query interrupted")  # what DuckDB raises where SIGINT reaches it in a query

    monkeypatch.setattr("rlpf_pipeline.sources.files.matching", query_of_minutes)
    assert rlpf(monkeypatch, "ingest", "ads.csv", "--format", "generic") == 130
    assert capsys.readouterr().err == ""
