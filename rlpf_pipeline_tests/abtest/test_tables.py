"""Tables of users: every kind of source, and files that are damaged."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rlpf_pipeline.abtest.headline import headline_of
from rlpf_pipeline.abtest.panel import load_experiment
from rlpf_pipeline.abtest.pre_period import planned_from
from rlpf_pipeline.abtest.spec import ExperimentSpec
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import experiment, panel_of


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return experiment(300, seed=4)


@pytest.mark.parametrize("kind", ["csv", "parquet", "pattern", "duckdb table", "duckdb query", "arrow"])
def test_every_source_gives_the_same_experiment(data, tmp_path, kind):
    query = None
    if kind == "csv":
        source = tmp_path / "data.csv"
        data.to_csv(source, index=False)
    elif kind == "parquet":
        source = tmp_path / "data.parquet"
        data.to_parquet(source)
    elif kind == "pattern":
        source = tmp_path / "part-*.parquet"
        data.head(100).to_parquet(tmp_path / "part-1.parquet")
        data.tail(200).to_parquet(tmp_path / "part-2.parquet")
    elif kind == "arrow":
        source = pa.Table.from_pandas(data)
    else:
        source = tmp_path / "data.duckdb"
        with duckdb.connect(str(source)) as connection:
            connection.register("frame", data)
            connection.execute("CREATE TABLE results AS FROM frame")
        query = "results" if kind == "duckdb table" else "SELECT * FROM results WHERE impressions > 0"
    found = load_experiment(source, query=query)
    pd.testing.assert_frame_equal(found.advertisers, load_experiment(data).advertisers)
    assert headline_of(source, query=query).risk == pytest.approx(headline_of(data).risk, rel=1e-9)


def test_a_row_with_a_field_too_many_or_too_few_is_named(data, tmp_path):
    """DuckDB took such a file for one column of lines, and the columns for missing."""
    path = tmp_path / "data.csv"
    lines = data[["advertiser_id", "arm", "impressions", "clicks"]].to_csv(index=False).splitlines()
    for row, odd in ((2, lines[2] + ",extra"), (150, "adv-000149,control")):
        for mark in (",", ";", "\t"):
            path.write_text("\n".join([*lines[:row], odd, *lines[row + 1 :]]).replace(",", mark))
            with pytest.raises(UserError, match=rf"CSV Error on Line: {row + 1} .* Expected Number of Columns: 4"):
                load_experiment(path)


def test_an_advertiser_that_one_file_writes_as_a_float_is_one(data, tmp_path):
    """pandas writes whole numbers as floats where the column lacks some."""
    numbered = data.assign(advertiser_id=range(1200, 1200 + len(data)))
    days = panel_of(numbered, days=2)
    for day, rows in days.groupby("day"):
        ids = rows["advertiser_id"].astype(float if day == days["day"].max() else int)
        rows.assign(advertiser_id=ids).to_csv(tmp_path / f"{day:%d}.csv", index=False)
    found = load_experiment(tmp_path / "*.csv", ExperimentSpec(date="day"))
    assert sorted(found.advertisers["advertiser_id"]) == sorted(map(str, numbered["advertiser_id"]))
    assert found.advertisers["clicks"].sum() == data["clicks"].sum()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("whole_first", [True, False])
def test_columns_of_several_files_hold_the_values_of_all(data, tmp_path, kind, whole_first):
    """pandas writes whole numbers where no value of a file is missing or broken, which DuckDB took for all files."""
    parts = [data.head(100).assign(lifetime_ctr=0, account_age_years=3), data.tail(200).drop(columns="industry")]
    for number, rows in enumerate(parts if whole_first else parts[::-1]):
        path = tmp_path / f"part-{number}.{kind}"
        rows.to_csv(path, index=False) if kind == "csv" else rows.to_parquet(path)
    together = pd.concat(parts)
    found, expected = load_experiment(tmp_path / f"*.{kind}"), load_experiment(together)
    for name in ("lifetime_ctr", "account_age_years", "industry"):
        assert found.advertisers[name].tolist() == pytest.approx(expected.advertisers[name].tolist(), nan_ok=True)
    assert headline_of(tmp_path / f"*.{kind}").risk == pytest.approx(headline_of(together).risk, rel=1e-9)


def test_a_row_of_a_csv_whose_name_begins_with_a_hash_is_no_comment(data, tmp_path):
    named = data.assign(advertiser_id=[*range(len(data) - 1), "#1"])
    named.to_csv(tmp_path / "data.csv", index=False)
    assert load_experiment(tmp_path / "data.csv").rows == len(data)


@pytest.mark.parametrize("first", [9_007_199_254_740_993, 120_210_000_000_000_017])
def test_advertisers_whose_numbers_floats_have_rounded_are_refused(data, first):
    numbered = data.assign(advertiser_id=[first + 4 * i for i in range(len(data))])
    assert len(load_experiment(numbered).advertisers) == len(data)
    for read in (load_experiment, headline_of):
        with pytest.raises(UserError, match="advertiser_id is a rounded number"):
            read(numbered.astype({"advertiser_id": float}))


@pytest.mark.parametrize("written", ["%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%y"])
def test_days_of_a_csv_that_may_be_months_are_refused(data, tmp_path, written):
    """02/01/2024 is the second of January or the first of February, until a day after the twelfth tells."""
    date = ExperimentSpec(date="day")
    days = panel_of(data, days=14)
    days["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(days["day"] - days["day"].min(), "D")
    early = days[days["day"] <= pd.Timestamp("2024-01-12")]
    for name, rows in (("early", early), ("all", days)):
        rows.assign(day=rows["day"].dt.strftime(written)).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(UserError, match=r"early\.csv.*2024-05-31"):
        load_experiment(tmp_path / "early.csv", date)
    pd.testing.assert_frame_equal(
        load_experiment(tmp_path / "all.csv", date).periods, load_experiment(days, date).periods
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_whose_name_reads_as_a_pattern_is_that_file(data, tmp_path, kind):
    for name, rows in (("results[1]", data), ("results1", data.head(100))):
        path = tmp_path / f"{name}.{kind}"
        rows.to_csv(path, index=False) if kind == "csv" else rows.to_parquet(path)
    assert len(load_experiment(tmp_path / f"results[1].{kind}").advertisers) == len(data)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_folders_of_files_are_neither_patterns_nor_columns(data, tmp_path, kind):
    for folder, rows in (("week[1]/arm=treatment", data), ("week1/arm=treatment", data.head(100))):
        (tmp_path / folder).mkdir(parents=True)
        path = tmp_path / folder / f"results.{kind}"
        rows.to_csv(path, index=False) if kind == "csv" else rows.to_parquet(path)
    for name in ("results", "*"):
        advertisers = load_experiment(tmp_path / f"week[1]/arm=treatment/{name}.{kind}").advertisers
        assert len(advertisers) == len(data)
        assert advertisers.arm.value_counts().to_dict() == data.arm.value_counts().to_dict()


def test_other_sources_are_refused(tmp_path):
    (tmp_path / "no.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match=r"pandas\.DataFrame"):
        load_experiment([1, 2, 3])
    with pytest.raises(UserError, match="No such file"):
        load_experiment(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="cannot be read"):
        load_experiment(tmp_path / "no.parquet")
    (tmp_path / "excel.csv").write_text("advertiser_id,arm\n1,control\n", encoding="utf-16")
    with pytest.raises(UserError, match="not utf-8"):
        load_experiment(tmp_path / "excel.csv")
    duckdb.connect(str(tmp_path / "w.duckdb")).close()
    with pytest.raises(UserError, match="--query"):
        load_experiment(tmp_path / "w.duckdb")
    with pytest.raises(UserError, match="absent"):
        load_experiment(tmp_path / "w.duckdb", query="absent")


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl.gz", "Rows.XLSX"])
def test_json_and_excel_are_told_as_what_is_not_read(tmp_path, name):
    (tmp_path / name).write_text("{}")
    for read in (load_experiment, planned_from):
        with pytest.raises(UserError, match=rf"{name} is no table that is read here: write it as CSV or Parquet"):
            read(tmp_path / name)


def test_a_broken_line_far_down_a_csv_is_the_users_mistake(tmp_path):
    lines = ["advertiser_id,arm,impressions,clicks"]
    lines += [f"a{i},{'control' if i % 2 else 'treatment'},100,3" for i in range(250_000)]
    (tmp_path / "data.csv").write_text("\n".join([*lines, 'b,control,"100,3', "c"]))
    with pytest.raises(UserError, match="cannot be read"):
        load_experiment(tmp_path / "data.csv")


def test_a_select_is_asked_once_for_it_may_give_other_rows_the_next_time(data, tmp_path):
    """Of a random sample the totals and the days would be of other rows, and the covariates of none."""
    days = panel_of(data, days=40)
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("CREATE TABLE days AS FROM days")
    query = "SELECT * FROM days USING SAMPLE 60 PERCENT (bernoulli)"
    found = load_experiment(tmp_path / "w.duckdb", ExperimentSpec(date="day"), query)
    assert 0 < found.rows < len(days)
    assert found.periods["impressions"].sum() == found.advertisers["impressions"].sum()
    assert found.advertisers["lifetime_ctr"].notna().all()


@pytest.mark.parametrize("read", [load_experiment, headline_of, planned_from])
def test_a_damaged_parquet_file_is_the_users_mistake(read, tmp_path):
    """The names of its columns are at its end, and whole: the rows turn out to be broken."""
    names = [f"a{number}" for number in range(5000)]
    frame = pd.DataFrame({"advertiser_id": names, "arm": ["control", "treatment"] * 2500})
    path = tmp_path / "data.parquet"
    frame.assign(impressions=np.arange(5000) + 100, clicks=np.arange(5000) % 7).to_parquet(path)
    sound, random, refused = path.read_bytes(), np.random.default_rng(1), 0
    for place in random.integers(4, len(sound) // 2, 20):
        path.write_bytes(sound[:place] + random.bytes(40) + sound[place + 40 :])
        try:
            read(path)  # some damage makes other numbers of numbers
        except UserError as error:
            refused += "cannot be read" in str(error)
    assert refused > 10


def test_a_view_is_asked_once_too_and_a_tables_name_may_have_a_schema(data, tmp_path):
    days = panel_of(data, days=40)
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("CREATE SCHEMA ads; CREATE TABLE ads.days AS FROM days; CREATE TABLE source AS FROM data")
        connection.execute("CREATE VIEW part AS FROM ads.days USING SAMPLE 60 PERCENT (bernoulli)")
    found = load_experiment(tmp_path / "w.duckdb", ExperimentSpec(date="day"), "part")
    assert found.periods["impressions"].sum() == found.advertisers["impressions"].sum()
    assert load_experiment(tmp_path / "w.duckdb", ExperimentSpec(date="day"), "ads.days").rows == len(days)
    assert load_experiment(tmp_path / "w.duckdb", query="source").rows == len(data)
