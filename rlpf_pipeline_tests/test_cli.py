"""The command line: exit codes, messages without tracebacks, and what a command leaves behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from rlpf_pipeline.artifacts import Recipe
from rlpf_pipeline.cli import app, main
from rlpf_pipeline.defs import launcher
from rlpf_pipeline.models.reward_folders import save_reward_model
from rlpf_pipeline.models.reward_model import new_reward_model
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, RewardSettings
from rlpf_pipeline.sources import ingest as ingesting
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline_tests.abtest.experiment_data import experiment

COMMANDS = ("run", "ingest", "pairs", "train", "score", "generate", "ab-report", "ab-power", "simulate")
ADS = """ad_id,variant_id,text,impressions,clicks
a,1,Fresh bread every day,1000,30
a,2,Bread,1000,10
b,1,Call us,500,501
"""


def rlpf(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the entry point in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["rlpf", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLPF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rlpf(monkeypatch, command, "--help") == 0
    assert f"Example: rlpf {command}" in capsys.readouterr().out


def test_all_commands_are_covered_here() -> None:
    assert set(COMMANDS) <= {command.name or command.callback.__name__ for command in app.registered_commands}


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


def test_ingest_then_pairs(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ads.csv").write_text(ADS)
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "ads.csv"), "--format", "generic") == 0
    assert "3 rows read, 2 accepted, 1 rejected" in capsys.readouterr().out
    assert rlpf(monkeypatch, "pairs", "--profile", "production") == 0
    assert len(pd.read_parquet(home / "production" / "snapshots" / "preferences" / "pairs.parquet")) == 1


def rows_of(home: Path) -> list[str]:
    return sorted(pd.read_parquet(home / "production" / "raw" / "multitext_ads.parquet").text)


def test_a_damaged_table_is_found_before_training_and_made_again_as_the_message_says(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ads.csv").write_text(ADS)
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "ads.csv"), "--format", "generic") == 0
    assert rlpf(monkeypatch, "pairs", "--profile", "production") == 0
    snapshot, warehouse = home / "production" / "snapshots", home / "production" / "warehouse.duckdb"
    written = pd.read_parquet(snapshot / "preferences" / "variants.parquet")
    shutil.rmtree(snapshot)
    (part,) = (home / "production" / "marts" / "variants.parquet").glob("*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    assert rlpf(monkeypatch, "pairs", "--profile", "production") == 2
    message = capsys.readouterr().err
    assert f"{part} is not what was written" in message
    assert f"delete {warehouse}" in message
    shutil.rmtree(part.parent)
    assert rlpf(monkeypatch, "pairs", "--profile", "production") == 2
    assert f"{part.parent} is missing. To make it again, delete {warehouse}" in capsys.readouterr().err
    warehouse.unlink()
    assert rlpf(monkeypatch, "pairs", "--profile", "production") == 0
    pd.testing.assert_frame_equal(pd.read_parquet(snapshot / "preferences" / "variants.parquet"), written)


def test_new_files_are_added_and_known_content_changes_nothing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "ad_id,text,impressions,clicks\n"
    one, copy, two = (tmp_path / name for name in ("one.csv", "copy.csv", "two.csv"))
    for path, rows in ((one, "a,First,100,1\n"), (copy, "a,First,100,1\n"), (two, "a,Second,100,2\n")):
        path.write_text(header + rows)

    def ingest(*arguments: str) -> int:
        return rlpf(monkeypatch, "ingest", *arguments, "--format", "generic")

    assert ingest(str(one)) == 0
    assert "unchanged" not in capsys.readouterr().out
    assert ingest(str(copy)) == 0
    assert "(unchanged)" in capsys.readouterr().out
    assert ingest(str(tmp_path / "t*.csv")) == 0
    assert rows_of(home) == ["First", "Second"]

    one.write_text(header + "a,First again,100,1\n")
    assert ingest(str(one)) == 0
    assert rows_of(home) == ["First again", "Second"]

    two.unlink()
    capsys.readouterr()
    assert ingest(str(copy)) == 2
    assert "would lose those rows" in capsys.readouterr().err
    assert rows_of(home) == ["First again", "Second"]
    assert ingest(str(copy), "--replace") == 0
    assert rows_of(home) == ["First"]


def test_of_two_that_ingest_at_once_the_second_waits_and_adds_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "june.csv", tmp_path / "july.csv"
    first.write_text(ADS)
    second.write_text(ADS.replace("a,", "c,"))
    others = []

    def meanwhile(*arguments: object) -> ingesting.IngestCounts:
        command = [sys.executable, "-m", "rlpf_pipeline.cli", "ingest", str(second), "--format", "generic"]
        others.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        assert "Waiting for another process" in others[0].stderr.readline()
        return ingest(*arguments)

    ingest = ingesting.ingest
    monkeypatch.setattr(ingesting, "ingest", meanwhile)
    assert rlpf(monkeypatch, "ingest", str(first), "--format", "generic") == 0
    assert "3 rows read, 2 accepted" in capsys.readouterr().out
    assert "6 rows read, 4 accepted" in others[0].communicate(timeout=60)[0]


def test_a_renamed_file_and_another_of_its_former_name_are_both_kept(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "ad_id,text,impressions,clicks\n"
    june, july = tmp_path / "ads.csv", tmp_path / "ads-1.csv"
    june.write_text(header + "a,First,100,1\n")
    assert rlpf(monkeypatch, "ingest", str(june), "--format", "generic") == 0
    june.rename(july)
    june.write_text(header + "b,Second,100,2\n")
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "ads*.csv"), "--format", "generic") == 0
    assert rows_of(home) == ["First", "Second"]


def test_what_the_system_refuses_is_told_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert rlpf(monkeypatch, "simulate", "--advertisers", "5", "--output", str(tmp_path / "file")) == 2
    assert f"{tmp_path / 'file'}: File exists" in " ".join(capsys.readouterr().err.split())


def test_a_file_changed_since_is_not_read_in_the_place_of_the_one_ingested(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "ad_id,text,impressions,clicks\n"
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text(header + "a,First,100,1\na,Other,100,2\n")
    two.write_text(header + "b,Second,100,2\n")
    assert rlpf(monkeypatch, "ingest", str(one), "--format", "generic") == 0
    one.write_text(header + "a,First,100,1\n")
    assert rlpf(monkeypatch, "ingest", str(two), "--format", "generic") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "gone or changed since" in message
    assert "one.csv" in message
    assert rows_of(home) == ["First", "Other"]
    assert rlpf(monkeypatch, "ingest", str(one), str(two), "--format", "generic") == 0
    assert rows_of(home) == ["First", "Second"]


def test_files_ingested_before_are_not_read_anew_with_other_options(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"ad_id": "1", "impressions": "100", "clicks": "50", "inline_link_clicks": "10"}
    for month in ("january", "february"):
        (tmp_path / f"{month}.jsonl").write_text(json.dumps(row | {"body_asset": {"text": month}}))

    def ingest(month: str, *options: str) -> int:
        return rlpf(monkeypatch, "ingest", str(tmp_path / f"{month}.jsonl"), "--format", "meta-ads", *options)

    def clicks() -> list[int]:
        return pd.read_parquet(home / "production" / "raw" / "multitext_ads.parquet").clicks.tolist()

    (tmp_path / "settings.yaml").write_text("ingest: {meta_clicks: all}")
    with monkeypatch.context() as of_settings:
        of_settings.setenv("RLPF_SETTINGS", str(tmp_path / "settings.yaml"))
        assert ingest("january") == 0
    assert ingest("january", "--meta-clicks", "all") == 0
    for month in ("january", "february"):
        assert ingest(month) == 2
        assert "meta_clicks was all, now link" in " ".join(capsys.readouterr().err.split())
        assert clicks() == [50]
    assert ingest("february", "--meta-clicks", "all") == 0
    assert clicks() == [50, 50]
    assert ingest("february", "--replace") == 0
    assert clicks() == [10]


def test_files_of_two_formats_do_not_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ads.csv").write_text(ADS)
    (tmp_path / "meta.csv").write_text("ad id,body text,impressions,link clicks\n1,Hello,100,1\n")
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "ads.csv"), "--format", "generic") == 0
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "meta.csv"), "--format", "meta-ads") == 2
    assert "holds files of format generic" in capsys.readouterr().err


def test_pairs_before_ingest_say_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rlpf(monkeypatch, "pairs", "--profile", "production") == 2
    assert "no raw_multitext_ads" in capsys.readouterr().err


def test_simulate_writes_the_asked_number_of_advertisers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rlpf(monkeypatch, "simulate", "--advertisers", "5", "--output", str(tmp_path / "market")) == 0
    assert pd.read_parquet(tmp_path / "market" / "multitext_ads.parquet").advertiser_id.nunique() == 5


@pytest.mark.parametrize("option", [("--novelty", "nan"), ("--novelty", "inf"), ("--early-winner", "inf")])
def test_simulate_refuses_what_is_no_number(
    option: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rlpf(monkeypatch, "simulate", "--advertisers", "2", "--output", str(tmp_path / "market"), *option) == 2
    assert "should be a finite number" in capsys.readouterr().err
    assert not (tmp_path / "market").exists()


@pytest.mark.parametrize(
    ("folder", "column", "message"),
    [("nowhere", "text", "is no model folder"), ("model", "headline", "no column 'headline'")],
)
def test_score_explains_a_wrong_folder_and_a_missing_column(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    column: str,
    message: str,
) -> None:
    save_tiny_reward_model(tmp_path / "model", home / "cache")
    (tmp_path / "ads.csv").write_text(ADS)
    arguments = (
        "--reward-model",
        str(tmp_path / folder),
        "--input",
        str(tmp_path / "ads.csv"),
        "--text-column",
        column,
    )
    assert rlpf(monkeypatch, "score", *arguments, "--output", str(tmp_path / "scored.parquet")) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "scored.parquet").exists()


def test_score_adds_its_columns(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny_reward_model(tmp_path / "model", home / "cache")
    (tmp_path / "ads.csv").write_text(ADS)
    arguments = (
        "--reward-model",
        str(tmp_path / "model"),
        "--input",
        str(tmp_path / "ads.csv"),
        "--text-column",
        "text",
    )
    output = tmp_path / "new" / "scored.parquet"
    assert rlpf(monkeypatch, "score", *arguments, "--group-column", "ad_id", "--output", str(output)) == 0
    table = pd.read_parquet(output)
    assert table.columns.tolist()[-4:] == ["reward_mean", "reward_spread", "rank", "p_best"]
    # an untrained model scores 0: both texts of ad a are first, each with one half
    assert table.p_best.tolist() == [0.5, 0.5, 1.0]
    assert table["rank"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text", "Bread"), "is no model folder"),
        ((), "Give either --text"),
        (("--text", "Bread", "--output", "o.parquet"), "Give either --text"),
        (("--input", "ads.csv"), "--input needs --text-column"),
    ],
)
def test_generate_explains_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert rlpf(monkeypatch, "generate", "--policy", str(tmp_path / "nowhere"), *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def save_tiny_reward_model(folder: Path, cache: Path) -> None:
    folder.mkdir()
    base = BaseModelSettings(name="tiny", dtype="float32")
    save_reward_model(new_reward_model(base, RewardSettings(), LoraSettings(), "reward_model", cache), folder)


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
    assert rlpf(monkeypatch, "ab-power") == 2
    assert "--standard-error" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff\xfe{"])
def test_train_with_a_broken_run_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert rlpf(monkeypatch, "train", "reward", "--config", str(tmp_path / "run.json")) == 2
    assert "run.json" in capsys.readouterr().err


def test_train_by_another_algorithm_starts_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(launcher, "launch", lambda module, config, environment: started.append((module, config)))
    asked = RunConfig(
        settings=load_settings("tiny", (), tmp_path), recipe=Recipe(stage="adllama"), inputs={}, output=tmp_path / "m"
    )
    path = tmp_path / "run.json"
    path.write_text(asked.model_dump_json())
    for algorithm in ("rloo", "ppo"):
        assert rlpf(monkeypatch, "train", "policy", "--config", str(path), "--algorithm", algorithm) == 0
    own = tmp_path / "adllama-rloo" / "run.json"
    assert started == [("rlpf_pipeline.training.jobs.policy", config) for config in (own, path)]
    assert RunConfig.read(own) == asked.by("rloo")
    assert RunConfig.read(path) == asked


@pytest.mark.parametrize("stage", ["policy_evaluation", "reward_model", "fake"])
def test_train_refuses_the_run_of_another_stage(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its output would lie under the name of what the stage makes."""
    monkeypatch.setattr(launcher, "launch", lambda *_: pytest.fail("a job was started"))
    config = RunConfig(
        settings=load_settings("tiny", (), tmp_path), recipe=Recipe(stage=stage), inputs={}, output=tmp_path / "m"
    )
    (tmp_path / "run.json").write_text(config.model_dump_json())
    assert rlpf(monkeypatch, "train", "policy", "--config", str(tmp_path / "run.json")) == 2
    assert f"is of {stage}, which `rlpf train policy` does not make" in capsys.readouterr().err


def test_train_takes_an_algorithm_for_the_policy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("train", "reward", "--config", str(tmp_path / "run.json"), "--algorithm")
    assert rlpf(monkeypatch, *command, "rloo") == 2
    assert "not for reward" in capsys.readouterr().err
    assert rlpf(monkeypatch, *command, "sarsa") == 2
    assert "best-of-n" in capsys.readouterr().err
