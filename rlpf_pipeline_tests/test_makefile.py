"""The Makefile, with programs in .venv that only say what they were given."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SAYS = '#!/bin/sh\nprintf "%s\\n" "$@" "dagster $DAGSTER_HOME" "data $RLPF_DATA"\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "check out"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "dagster.yaml", "workspace.yaml"):
        (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    for name in ("rlpf", "dagster"):
        (folder / ".venv" / "bin" / name).write_text(SAYS)
        (folder / ".venv" / "bin" / name).chmod(0o755)
    (folder / ".venv" / ".installed").touch()
    return folder


def made(checkout: Path, *arguments: str, **own: str) -> list[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("RLPF_", "MAKE"))}
    variables |= own
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_files_are_passed_on_whatever_their_names(checkout: Path) -> None:
    said = made(checkout, "run", "PROFILE=upworthy", "DATA=ads(1).csv it's.csv x[1]&y?.csv")
    assert said[1:9] == ["--profile", "upworthy", "--data", "ads(1).csv", "--data", "it's.csv", "--data", "x[1]&y?.csv"]


def test_the_ui_works_in_a_folder_with_a_space(checkout: Path) -> None:
    before = {path.name for path in checkout.iterdir()}
    said = made(checkout, "ui", "DATA=ads(1).csv /abs/y?.csv")
    assert said[-3:] == [f"dagster {checkout}/.rlpf/dagster", f"data {checkout}/ads(1).csv", "/abs/y?.csv"]
    assert (checkout / ".rlpf" / "dagster" / "dagster.yaml").is_file()
    assert {path.name for path in checkout.iterdir()} == before | {".rlpf"}


def test_a_relative_home_is_made_absolute_for_dagster(checkout: Path) -> None:
    assert f"dagster {checkout}/homes/mine/dagster" in made(checkout, "ui", RLPF_HOME="homes/mine")
    assert (checkout / "homes" / "mine" / "dagster" / "dagster.yaml").is_file()
