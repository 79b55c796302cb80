"""Data in, pairs, markets: exit codes, messages, and what the commands leave behind."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from rlpf_pipeline.cli import pipeline
from rlpf_pipeline.defs.steps import raw_multitext_ads
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.sources import ingest as ingesting
from rlpf_pipeline_tests.cli.entry_point import ADS, rlpf


def test_ingest_then_pairs(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ads.csv").write_text(ADS)
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "ads.csv"), "--format", "generic") == 0
    printed = capsys.readouterr().out
    assert "3 rows read, 2 accepted, 1 rejected\n  1 rejected: more clicks than impressions\n" in printed
    assert "Next: rlpf pairs --profile production" in printed
    assert rlpf(monkeypatch, "pairs", "--profile", "production") == 0
    assert len(pd.read_parquet(home / "production" / "snapshots" / "preferences" / "pairs.parquet")) == 1


def test_run_takes_a_pattern_of_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("june.csv", "july.csv"):
        (tmp_path / name).write_text(ADS)
    given = []
    monkeypatch.setattr("rlpf_pipeline.defs.run.run_everything", lambda settings, say: given.append(settings.data))
    assert rlpf(monkeypatch, "run", "--profile", "production", "--data", str(tmp_path / "ju*.csv")) == 1
    assert given == [(tmp_path / "july.csv", tmp_path / "june.csv")]
    assert rlpf(monkeypatch, "run", "--profile", "production", "--data", str(tmp_path / "may*.csv")) == 2
    assert "No file matches" in capsys.readouterr().err


def test_the_web_ui_is_started_by_make_or_without_a_makefile_by_dagster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "our ads"
    settings = load_settings("tiny", (), home)
    for from_wheel, command in (
        (False, ["make", "ui", "PROFILE=tiny"]),
        (
            True,
            [
                f"RLPF_HOME={home}",
                f"DAGSTER_HOME={home}/dagster",
                "RLPF_PROFILE=tiny",
                *("dagster", "dev", "-m", "rlpf_pipeline.definitions"),
            ],
        ),
    ):
        monkeypatch.setattr(pipeline, "IS_INSTALLED", from_wheel)
        assert shlex.split(pipeline.web_ui_command(settings)) == command


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


def test_a_raw_table_that_lacks_a_file_is_told_and_made_again_as_the_message_says(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("june.csv", "july.csv"):
        (tmp_path / name).write_text(ADS.replace("a,", f"{name},"))
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "ju*.csv"), "--format", "generic") == 0
    settings, written = load_settings("production", ()), rows_of(home)
    for name in ("multitext_ads.parquet", "rejects.parquet"):
        (home / "production" / "raw" / name).unlink()
        with pytest.raises(UserError, match=rf"Missing of the raw table: .*{name}.*july\.csv, .*june\.csv"):
            raw_multitext_ads(settings)
        assert rlpf(monkeypatch, "ingest", str(tmp_path / "june.csv"), "--format", "generic") == 0
        assert raw_multitext_ads(settings).reused
        assert rows_of(home) == written


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


def test_files_named_in_another_order_with_replace_are_read_in_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, late = (tmp_path / name for name in ("early.csv", "late.csv"))
    for path, clicks in ((early, 1), (late, 9)):
        path.write_text(f"ad_id,text,impressions,clicks,period\na,Save,100,{clicks},2025-03-01\n")
    for order, counted in (((late, early), 1), ((early, late), 9)):
        assert rlpf(monkeypatch, "ingest", *map(str, order), "--format", "generic", "--replace") == 0
        raw = pd.read_parquet(home / "production" / "raw" / "multitext_ads.parquet")
        assert raw.clicks.tolist() == [counted]


def test_of_many_files_that_are_gone_the_first_are_named(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    days = [tmp_path / f"day-{number:02}.csv" for number in range(1, 15)]
    for number, path in enumerate(days):
        path.write_text(f"ad_id,text,impressions,clicks\n{number},Save,100,1\n")
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "*.csv"), "--format", "generic") == 0
    for path in days[:-1]:
        path.unlink()
    days[-1].write_text("ad_id,text,impressions,clicks\nx,Save,100,1\n")
    capsys.readouterr()
    assert rlpf(monkeypatch, "ingest", str(days[-1]), "--format", "generic") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "day-10.csv and 3 more. The raw table" in told
    assert "day-11.csv" not in told


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


def test_of_a_renamed_file_and_the_day_anew_under_its_former_name_the_new_one_counts(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in the order of their names, the old one counted."""
    header = "ad_id,text,impressions,clicks,period\n"
    ads, old = tmp_path / "ads.csv", tmp_path / "ads_old.csv"
    ads.write_text(header + "a,One,40,1,2024-03-01\n")
    assert rlpf(monkeypatch, "ingest", str(ads), "--format", "generic") == 0
    ads.rename(old)
    ads.write_text(header + "a,One,100,3,2024-03-01\n")
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "ads*.csv"), "--format", "generic") == 0
    raw = pd.read_parquet(home / "production" / "raw" / "multitext_ads.parquet")
    assert raw.impressions.tolist() == [100]


def test_that_a_changed_file_takes_its_former_rows_along_is_told(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    latest, copy = tmp_path / "latest.csv", tmp_path / "2024-03-01.csv"
    latest.write_text("ad_id,text,impressions,clicks\na,First,100,1\n")
    assert rlpf(monkeypatch, "ingest", str(latest), "--format", "generic") == 0
    copy.write_bytes(latest.read_bytes())
    latest.write_text("ad_id,text,impressions,clicks\na,Second,100,1\n")
    capsys.readouterr()
    assert rlpf(monkeypatch, "ingest", str(latest), "--format", "generic") == 0
    assert f"{latest} has other content than before; its former rows are gone." in capsys.readouterr().out
    assert rlpf(monkeypatch, "ingest", str(copy), "--format", "generic") == 0
    assert "former rows" not in capsys.readouterr().out
    assert rows_of(home) == ["First", "Second"]


def test_a_file_that_was_moved_is_read_where_it_is_named_beside_a_new_one(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    june, moved, july = (tmp_path / name for name in ("june.csv", "2024-06.csv", "july.csv"))
    for path, text in ((june, "First"), (july, "Second")):
        path.write_text(f"ad_id,text,impressions,clicks\na,{text},100,1\n")
    assert rlpf(monkeypatch, "ingest", str(june), "--format", "generic") == 0
    june.rename(moved)
    assert rlpf(monkeypatch, "ingest", str(july), "--format", "generic") == 2
    assert "name those that were moved" in " ".join(capsys.readouterr().err.split())
    assert rlpf(monkeypatch, "ingest", str(moved), str(july), "--format", "generic") == 0
    assert rows_of(home) == ["First", "Second"]
    july.rename(june)
    assert rlpf(monkeypatch, "ingest", str(june), "--format", "generic") == 0
    assert "(unchanged)" in capsys.readouterr().out


def test_of_rows_that_are_rejected_each_kind_is_told_once_and_the_lines_that_an_open_quote_took(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = 'a,One,100,1\na,One,100,1\na,One,100,1\nb,"open,100,1\n' + "c,Lost,100,1\n" * 3
    (tmp_path / "ads.csv").write_text(f"ad_id,text,impressions,clicks\n{rows}")
    assert rlpf(monkeypatch, "ingest", str(tmp_path / "ads.csv"), "--format", "generic") == 0
    first, two, one, *_ = capsys.readouterr().out.splitlines()
    assert first == "4 rows read, 1 accepted, 3 rejected"
    assert two == "  2 rejected, such as: duplicate variant: same ad, text and period as row 1"
    assert one.startswith("  1 rejected: malformed row: a quote is not closed or not doubled; lines 5 to 8 of the file")


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


@pytest.mark.parametrize("beyond", ["median_impressions: 1.0e+18", "impressions_sigma: 1000", "novelty: 800"])
def test_simulate_refuses_a_market_beyond_any(
    beyond: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(f"market: {{{beyond}}}")
    monkeypatch.setenv("RLPF_SETTINGS", str(tmp_path / "own.yaml"))
    assert rlpf(monkeypatch, "simulate", "--advertisers", "2", "--output", str(tmp_path / "market")) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert beyond.partition(":")[0] in message
    assert "less than or equal to" in message
