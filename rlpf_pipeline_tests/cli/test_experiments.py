"""The A/B report and a plan from the command line."""

import json
from pathlib import Path

import pandas as pd
import pytest

from rlpf_pipeline_tests.abtest.experiment_data import experiment
from rlpf_pipeline_tests.cli.entry_point import rlpf


def test_ab_report_on_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rlpf(monkeypatch, "ab-report", "--data", "absent.parquet", "--output", str(tmp_path)) == 2
    assert "absent.parquet" in capsys.readouterr().err


def test_ab_report_of_a_panel_with_a_spec_is_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    days = pd.concat([experiment(300, seed=1).assign(day=day) for day in range(3)])
    days.rename(columns={"impressions": "views"}).to_csv("days.csv", index=False)
    Path("spec.yaml").write_text("date: day\ncolumns: {impressions: views}\n")
    command = ("ab-report", "--data", "days.csv", "--spec", "spec.yaml", "--output", "report")
    assert rlpf(monkeypatch, *command) == 0
    assert "Relative risk " in capsys.readouterr().out
    first = {path.name: path.read_bytes() for path in Path("report").iterdir()}
    assert "rlpf ab-report --data days.csv --output report --spec spec.yaml" in first["report.html"].decode()
    assert rlpf(monkeypatch, *command) == 0
    assert {path.name: path.read_bytes() for path in Path("report").iterdir()} == first


def test_ab_power_from_an_error_and_from_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the study's error the study's effect needs (0.0299 / (log 1.067 / 2.8016))^2 as many advertisers."""
    known = ("--effect", "0.067", "--standard-error", "0.0299", "--advertisers", "34849")
    assert rlpf(monkeypatch, "ab-power", *known, "--output", str(tmp_path / "plan.json")) == 0
    assert "58,145 advertisers" in capsys.readouterr().out
    assert json.loads((tmp_path / "plan.json").read_text())["needed_advertisers"] == 58_145
    experiment(300, seed=1).to_parquet(tmp_path / "past.parquet")
    assert rlpf(monkeypatch, "ab-power", "--data", str(tmp_path / "past.parquet")) == 0
    assert "advertisers" in capsys.readouterr().out
    for neither_or_both in ((), (*known, "--data", str(tmp_path / "past.parquet"))):
        assert rlpf(monkeypatch, "ab-power", *neither_or_both) == 2
        assert "Either --data, or --standard-error" in capsys.readouterr().err


def test_ab_power_tells_what_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--effect", "0.0125", "--power", "0.995", "--standard-error", "0.0299", "--advertisers", "34849")
    assert rlpf(monkeypatch, "ab-power", *asked) == 0
    told = capsys.readouterr().out
    assert "advertisers find +1.25 % with 99.5 % probability." in told
    assert "found with 99.5 %" in told


def test_a_share_of_treatment_without_data_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was passed over, and stood in the plan as if it had been used."""
    known = ("--standard-error", "0.0299", "--advertisers", "34849")
    assert rlpf(monkeypatch, "ab-power", *known, "--treatment-share", "0.1") == 2
    assert "--treatment-share is for a plan from --data" in capsys.readouterr().err


def test_ab_power_does_not_write_over_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    past = tmp_path / "past.csv"
    experiment(300, seed=1).to_csv(past, index=False)
    before = past.read_bytes()
    assert rlpf(monkeypatch, "ab-power", "--data", str(past), "--output", str(tmp_path / "." / "past.csv")) == 2
    assert "is the data. Choose another name" in capsys.readouterr().err
    assert past.read_bytes() == before
