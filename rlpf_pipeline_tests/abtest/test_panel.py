"""Experiments of users: every kind of mistake in their rows, and sums that change nothing."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.abtest.headline import headline_of
from rlpf_pipeline.abtest.log_binomial import log_binomial
from rlpf_pipeline.abtest.panel import load_experiment
from rlpf_pipeline.abtest.spec import ExperimentSpec
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import experiment, panel_of, with_treatment


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return experiment(300, seed=4)


def test_a_panel_is_summed_and_described_by_its_first_day(data):
    found = load_experiment(panel_of(data), ExperimentSpec(date="day"))
    once = load_experiment(data)
    pd.testing.assert_frame_equal(found.advertisers, once.advertisers)
    assert (found.period_name, found.rows) == ("week", 9000)
    assert list(found.periods.groupby("advertiser")["clicks"].sum()) == list(once.advertisers["clicks"])
    assert sorted(found.periods["period"].unique()) == [0, 1, 2, 3, 4]


def test_spend_sums_to_the_same_bytes_however_the_rows_are_read(data, tmp_path):
    """Two threads read the row groups in any order; the expected sums are exact (fractions of cents)."""
    days = pd.concat([data.assign(day=day) for day in range(120)])
    cents = np.random.default_rng(6).integers(1, 10**7, len(days))
    days = days.assign(cents=cents, spend=cents / 1000).sample(frac=1, random_state=2)
    days.drop(columns="cents").to_parquet(tmp_path / "days.parquet", row_group_size=2000)
    exact = days.groupby("advertiser_id")["cents"].sum() / 1000
    for _ in range(4):
        found = load_experiment(tmp_path / "days.parquet", ExperimentSpec(date="day")).advertisers
        assert list(found["spend"]) == list(exact)


def test_summing_a_panel_first_gives_the_clustered_fit_of_its_rows(data):
    panel = panel_of(data, days=6)
    panel = with_treatment(panel)
    rows = log_binomial(panel, "~ treatment + C(industry)", "clicks", "impressions", cluster="advertiser_id")
    advertisers = load_experiment(panel, ExperimentSpec(date="day")).advertisers
    advertisers = with_treatment(advertisers)
    totals = log_binomial(advertisers, "~ treatment + C(industry)", "clicks", "impressions")
    assert rows.coefficients == pytest.approx(totals.coefficients, rel=1e-9)
    assert rows.standard_errors["cluster"] == pytest.approx(totals.standard_errors["hc0"], rel=1e-9)


def test_days_of_times_with_a_zone_are_those_of_utc(data, tmp_path, monkeypatch):
    """01:00 and 23:00 of one day in UTC are two days further east or west: rows of one day twice."""
    hours = [data.assign(day=pd.Timestamp(f"2024-01-01 {hour}:00", tz="UTC")) for hour in ("01", "23")]
    pd.concat(hours).to_parquet(tmp_path / "hours.parquet")
    for zone in ("Asia/Tokyo", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        with pytest.raises(UserError, match="same day"):
            load_experiment(tmp_path / "hours.parquet", ExperimentSpec(date="day"))
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("names", [[float("nan"), 1.0, 2.0], [b"", b"a", b"b"]])
def test_a_missing_name_that_is_no_text_is_told_as_such(names):
    rows = pa.table(
        {
            "advertiser_id": pa.array(names, from_pandas=False),
            "arm": ["control", "treatment", "control"],
            "impressions": [5, 5, 5],
            "clicks": [1, 1, 1],
        }
    )
    with pytest.raises(UserError, match=r"1 row\(s\): missing value in advertiser_id"):
        load_experiment(rows)


def test_a_spec_names_columns_arms_and_covariates(data):
    renamed = data.rename(columns={"advertiser_id": "account no", "impressions": 'the "views"', "industry": "trade"})
    renamed["arm"] = renamed["arm"].map({"control": "A", "treatment": "B"})
    spec = ExperimentSpec(
        columns={"advertiser_id": "account no", "impressions": 'the "views"', "sector": "trade"},
        arms={"control": "A", "treatment": "B"},
        covariates={"sector": "category", "account_age_years": "number"},
        segments=["sector"],
    )
    found = load_experiment(renamed, spec)
    assert [covariate.name for covariate in found.covariates] == ["sector", "account_age_years"]
    assert found.segments == ("sector",)
    assert set(found.advertisers["arm"]) == {"control", "treatment"}


@pytest.mark.parametrize("kind", ["float32", "float64", "int8"])
def test_arms_may_be_numbers(data, kind):
    """Of a type with decimals too, as pandas holds numbers beside missing values."""
    numbers = data.assign(arm=data["arm"].map({"control": 10, "treatment": 20}).astype(kind))
    found = load_experiment(numbers, ExperimentSpec(arms={"control": 10, "treatment": 20}))
    pd.testing.assert_frame_equal(found.advertisers, load_experiment(data).advertisers)


def test_absent_optional_columns_are_no_mistake(data):
    found = load_experiment(data[["advertiser_id", "arm", "impressions", "clicks"]])
    assert (found.covariates, found.outcomes, found.segments) == ((), (), ())


def test_missing_covariates_stay_null(data):
    holes = data.assign(
        industry=data["industry"].where(data.index > 9), lifetime_ctr=data["lifetime_ctr"].where(data.index > 4)
    )
    found = load_experiment(holes).advertisers
    assert found["industry"].isna().sum() == 10
    assert found["lifetime_ctr"].isna().sum() == 5


def test_nan_is_a_missing_value_of_every_covariate(data, tmp_path):
    """As a flag it would be true, as a category a level of that name, as a number larger than any; and DuckDB takes a
    Parquet file for free of it where the file's statistics, which leave it out, have an end."""
    numbers = {"new_advertiser": data.index % 2, "industry": data.index % 3}
    numbers |= {name: data[name].to_numpy() for name in ("account_age_years", "lifetime_ctr")}
    gaps = np.asarray(data.index < 30)
    rest = pa.Table.from_pandas(data.drop(columns=list(numbers)), preserve_index=False)
    nan, null = rest, rest
    for name, values in numbers.items():
        nan = nan.append_column(name, pa.array(np.where(gaps, np.nan, values)))
        null = null.append_column(name, pa.array(values.astype(float), mask=gaps))
    pd.testing.assert_frame_equal(load_experiment(nan).advertisers, load_experiment(null).advertisers)
    assert load_experiment(nan).advertisers["industry"].isna().sum() == 30
    assert headline_of(nan) == headline_of(null)
    file = tmp_path / "nan.parquet"
    pq.write_table(nan, file)
    pd.testing.assert_frame_equal(load_experiment(file).advertisers, load_experiment(null).advertisers)
    assert headline_of(file) == headline_of(null)


@pytest.mark.parametrize("word", ["NA", "n/a", "NULL", "None"])
def test_words_for_what_is_missing_are_so_where_numbers_are_expected(data, tmp_path, word):
    """In a category they may be names: North America, no expertise."""
    holes = data.assign(
        lifetime_ctr=data["lifetime_ctr"].where(data.index > 4),
        new_advertiser=data["new_advertiser"].astype(object).where(data.index > 6),
        industry=data["industry"].where(data.index > 9, word),
    )
    holes.to_csv(tmp_path / "empty.csv", index=False)
    holes.to_csv(tmp_path / "words.csv", index=False, na_rep=word)
    found = load_experiment(tmp_path / "words.csv").advertisers
    pd.testing.assert_frame_equal(found, load_experiment(tmp_path / "empty.csv").advertisers)
    assert (found["lifetime_ctr"].isna().sum(), found["new_advertiser"].isna().sum()) == (5, 7)
    assert (found["industry"] == word).sum() == 10
    assert headline_of(tmp_path / "words.csv") == headline_of(tmp_path / "empty.csv")
    with pytest.raises(UserError, match=r"5 row\(s\): missing value in clicks; for example advertiser"):
        load_experiment(data.assign(clicks=data["clicks"].astype(str).where(data.index > 4, word)))


def test_an_arm_may_be_called_none(data):
    spec = ExperimentSpec(arms={"control": "none", "treatment": "new"})
    named = data.assign(arm=data["arm"].map({"control": "none", "treatment": "new"}))
    pd.testing.assert_frame_equal(load_experiment(named, spec).advertisers, load_experiment(data).advertisers)
    with pytest.raises(UserError, match="arm is not one of none and new"):
        load_experiment(named.assign(arm=named["arm"].where(data.index > 0, "old")), spec)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda d: d.drop(columns=["clicks", "arm"]), "no column arm, clicks"),
        (
            lambda d: d.assign(clicks=d["impressions"] + 1),
            r"more clicks than impressions; for example advertiser [^ ]+ \((\d+) of \d+\)",
        ),
        (lambda d: d.assign(clicks=-1), r"clicks is negative; for example advertiser [^ ]+ \(-1\)"),
        (lambda d: pd.concat([d, d.head(1)]), "more than one row"),
        (
            lambda d: pd.concat([d, d.head(1).assign(arm={"control": "treatment"}.get(d["arm"][0], "control"))]),
            "more than one arm",
        ),
        (lambda d: d[d["arm"] == "control"], "only control"),
        (
            lambda d: d.assign(arm=d["arm"].replace("control", "holdout")),
            r"not one of control and treatment .* \(holdout\)\. Correct",
        ),
        (lambda d: d.assign(clicks=d["clicks"].where(d.index != 3)), "missing value in clicks; for example advertiser"),
        (lambda d: d.assign(advertiser_id=d["advertiser_id"].where(d.index != 3)), "missing value in advertiser_id"),
        (lambda d: d.assign(arm=None), "missing value in arm"),
        (lambda d: d.assign(new_advertiser="maybe"), r"not true or false; .* \(maybe\)\. "),
        (lambda d: d.assign(new_advertiser=1 + d["new_advertiser"]), "not true or false"),
        (lambda d: d.assign(account_age_years=1e200), "not a finite number"),
        (lambda d: d.assign(impressions=1e21), "not a finite number"),
        (lambda d: d.assign(impressions=2**53 + 2), "not a finite number"),
        (lambda d: d.assign(impressions="1,234"), r"not a finite number .* \(1,234\)\. "),
        (lambda d: d.assign(account_age_years=np.inf), r"not a finite number .* \(inf\)\. "),
        (lambda d: d.assign(impressions=d["impressions"] + 0.5), "impressions counts whole things"),
        (lambda d: d.assign(lifetime_ctr=-0.1), "lifetime_ctr is negative"),
        (lambda d: d.head(0), "no rows"),
    ],
)
@pytest.mark.parametrize("read", [load_experiment, headline_of])
def test_a_mistake_is_refused_with_what_and_where(data, broken, message, read):
    with pytest.raises(UserError, match=message):
        read(broken(data))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda d: d.assign(ads=d["ads"] + 0.5), "ads counts whole things"),
        (lambda d: d.assign(spend=np.inf), "spend is not a finite number"),
        (lambda d: d.assign(spend=-1.0), "spend is negative"),
    ],
)
def test_a_mistake_in_an_outcome_is_refused_where_it_is_read(data, broken, message):
    with pytest.raises(UserError, match=message):
        load_experiment(broken(data))
    assert headline_of(broken(data)) == headline_of(data)


def test_dates_written_as_whole_numbers_are_dates(data):
    """As numbers of days, the 31st of January and the 1st of February would be 70 days apart."""
    panel = panel_of(data)
    written = panel.assign(day=panel["day"].dt.strftime("%Y%m%d").astype(int))
    found, expected = (load_experiment(rows, ExperimentSpec(date="day")) for rows in (written, panel))
    pd.testing.assert_frame_equal(found.periods, expected.periods)
    assert found.period_name == "week"
    with pytest.raises(UserError, match="not a date"):
        load_experiment(pd.concat([written, data.assign(day=20240230)]), ExperimentSpec(date="day"))


def test_a_date_that_is_none_is_refused(data):
    with pytest.raises(UserError, match="not a date"):
        load_experiment(data.assign(day="soon"), ExperimentSpec(date="day"))
    with pytest.raises(UserError, match=r"day is not a date such as .* whole numbers \(it is DOUBLE\)"):
        load_experiment(data.assign(day=1.0), ExperimentSpec(date="day"))
    with pytest.raises(UserError, match="no column day"):
        load_experiment(data, ExperimentSpec(date="day"))


@pytest.mark.parametrize("days", [3, 63, 64, 127, 128])
def test_two_rows_of_a_day_are_refused_with_an_example(data, days):
    """Silently summed, they would count that day twice. 63 and 127 days fit into the bits of a whole
    number, one more do not."""
    first = pd.Timestamp("2024-02-16")
    panel = pd.concat([data.head(40).assign(day=first + pd.Timedelta(days=day)) for day in range(days)])
    again = panel[(panel["day"] == first + pd.Timedelta(days=2)) & (panel["arm"] == "treatment")]
    named = again["advertiser_id"].min()
    assert load_experiment(panel, ExperimentSpec(date="day")).rows == 40 * days
    with pytest.raises(UserError, match=rf"^{len(again)} advertiser.*the same day.*{named} 2 of 2024-02-18"):
        load_experiment(pd.concat([panel, again]), ExperimentSpec(date="day"))


def test_two_rows_of_a_numbered_week_are_refused(data):
    weeks = pd.concat([data.assign(week=week) for week in (-1, 4, 4)])
    with pytest.raises(UserError, match=r"^300 advertiser.*the same week.*adv-000000 2 of 4"):
        load_experiment(weeks, ExperimentSpec(date="week"))


@pytest.mark.parametrize(
    ("far", "said"), [("1970-01-01", "from 1970-01-01 to 2024-02-16"), ("2099-12-31", "from 2024-02-16 to 2099-12-31")]
)
def test_a_date_far_off_is_refused(data, far, said):
    dated = data.assign(day=pd.Timestamp("2024-02-16"))
    with pytest.raises(UserError, match=said):
        load_experiment(pd.concat([dated, dated.head(1).assign(day=pd.Timestamp(far))]), ExperimentSpec(date="day"))


def test_seconds_are_no_days(data):
    seconds = pd.concat([data.assign(at=at) for at in (1_700_000_000, 1_700_604_800)])
    with pytest.raises(UserError, match="from 1700000000 to 1700604800"):
        load_experiment(seconds, ExperimentSpec(date="at"))


def test_weeks_of_two_years_do_not_follow_one_another(data):
    weeks = pd.concat([data.assign(week=week) for week in (202452, 202501)])
    with pytest.raises(UserError, match=r"from 202452 to 202501.* number the weeks one after another"):
        load_experiment(weeks, ExperimentSpec(date="week"))


@pytest.mark.parametrize("first", [202450, 202599, 19723])
def test_weeks_of_one_year_and_other_numbers_do(data, first):
    found = load_experiment(pd.concat([data.assign(at=first + at) for at in (0, 1, 2)]), ExperimentSpec(date="at"))
    assert sorted(found.periods["period"].unique()) == [0, 1, 2]


def test_numbered_weeks_are_periods(data):
    weeks = pd.concat([data.assign(week=week) for week in (1, 2, 3)])
    found = load_experiment(weeks, ExperimentSpec(date="week"))
    assert found.period_name == "period"
    assert sorted(found.periods["period"].unique()) == [0, 1, 2]
