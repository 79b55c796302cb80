"""Power at the study's published standard error of 0.0299 (design facts: 58 % at +6.7 %, MDE +8.7 %)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tea_tasting as tt

from rlpf_pipeline.abtest.power import (
    minimum_detectable_effect,
    needed_advertisers,
    past_of,
    plan,
    power_at,
    realised_power,
    significant_errors,
)
from rlpf_pipeline.abtest.pre_period import planned_from
from rlpf_pipeline.abtest.ratio import delta_method
from rlpf_pipeline.errors import UserError
from rlpf_pipeline_tests.abtest.experiment_data import experiment


def test_the_studys_own_error_gives_its_power_and_detectable_effect():
    power = realised_power(0.0299)
    assert power.power_at_study_effect == pytest.approx(0.58, abs=0.005)
    assert power.minimum_detectable_effect == pytest.approx(0.087, abs=0.0005)


def test_power_at_no_effect_is_the_significance_level():
    assert power_at(0.0, 0.03) == pytest.approx(0.05)


def test_the_detectable_effect_has_the_power_it_names():
    assert power_at(minimum_detectable_effect(0.02, power=0.9), 0.02) == pytest.approx(0.9, abs=1e-6)


def test_an_error_beyond_numbers_detects_nothing_and_overflows_nowhere():
    assert realised_power(1e6).minimum_detectable_effect > 1e100


def test_exaggeration_and_sign_risk_by_simulation():
    """A million normal estimates around log 1.067 with an error as large as that."""
    truth = math.log(1.067)
    estimates = np.random.default_rng(1).normal(truth, truth, 1_000_000)
    significant = np.abs(estimates) > 1.959964 * truth
    exaggeration, sign_risk = significant_errors(0.067, truth)
    assert exaggeration == pytest.approx(np.abs(estimates[significant]).mean() / truth, rel=0.005)
    assert sign_risk == pytest.approx((estimates[significant] < 0).mean(), rel=0.12)


def test_a_sure_find_is_not_exaggerated():
    exaggeration, sign_risk = significant_errors(0.5, 0.01)
    assert exaggeration == pytest.approx(1)
    assert sign_risk < 1e-9


def test_needed_advertisers_have_the_power():
    needed = needed_advertisers(0.03, 0.0299, 34_849)
    assert power_at(0.03, 0.0299 * math.sqrt(34_849 / needed)) == pytest.approx(0.8, abs=1e-4)


def test_no_plan_is_too_small_to_analyse():
    assert needed_advertisers(500.0, standard_error=0.0299, advertisers=34_849) == 10


def test_the_expected_error_is_what_an_experiment_on_the_same_advertisers_has():
    frame = experiment(4000, seed=1, relative_risk=1.0)
    k, n = (frame[name].to_numpy(float) for name in ("clicks", "impressions"))
    realised = delta_method(k, n, (frame["arm"] == "treatment").to_numpy()).standard_error
    assert past_of(k, n).standard_error == pytest.approx(realised, rel=0.05)
    assert past_of(k, n, 0.1).standard_error == pytest.approx(
        past_of(k, n).standard_error * math.sqrt((1 / 0.1 + 1 / 0.9) / 4)
    )


def test_a_cautious_plan_finds_what_it_promises():
    """Pasts of 400 out of 200,000, log impressions of standard deviation 1.3: their own plans for 80 % find less."""
    frame = experiment(200_000, seed=1, relative_risk=1.0)
    k, n = (frame[name].to_numpy(float) for name in ("clicks", "impressions"))
    error, rng = past_of(k, n).standard_error, np.random.default_rng(2)
    pasts = [past_of(k[own], n[own]) for own in (rng.integers(len(k), size=400) for _ in range(200))]

    def found(errors):
        sizes = [needed_advertisers(0.1, own, 400) for own in errors]
        return np.mean([power_at(0.1, error * math.sqrt(len(k) / size)) for size in sizes])

    assert found([past.standard_error for past in pasts]) < 0.75
    assert 0.8 < found([past.cautious_error for past in pasts]) < 0.9


def test_needed_advertisers_agree_with_tea_tasting():
    """Theirs is linear in the ratio, ours in its logarithm: at an effect of 1 % they differ by 1 %."""
    frame = experiment(3000, seed=2)
    theirs = tt.RatioOfMeans("clicks", "impressions", use_t=False, rel_effect_size=0.01, power=0.8, alpha=0.05)
    wanted = theirs.solve_power(frame, "n_obs")[0].n_obs
    error = past_of(frame["clicks"].to_numpy(float), frame["impressions"].to_numpy(float)).standard_error
    assert needed_advertisers(0.01, error, 3000) == pytest.approx(wanted, rel=0.015)


def test_a_plan_from_a_file_sums_days_and_refuses_what_it_cannot_use(tmp_path):
    frame = experiment(200, seed=3)
    days = pd.concat([frame, frame])[["advertiser_id", "impressions", "clicks"]]
    days.to_csv(tmp_path / "past.csv", index=False)
    k, n = (2 * frame[name].to_numpy(float) for name in ("clicks", "impressions"))
    assert planned_from(tmp_path / "past.csv") == pytest.approx(past_of(k, n))
    assert past_of(k, n).advertisers == 200
    frame.drop(columns="clicks").to_csv(tmp_path / "no.csv", index=False)
    with pytest.raises(UserError, match="no column clicks"):
        planned_from(tmp_path / "no.csv")
    with pytest.raises(UserError, match="too few"):
        past_of(k[:5], n[:5])
    with pytest.raises(UserError, match="All 200 advertisers have the same click-through rate"):
        past_of(0.04 * n, n)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"clicks": "n/a"}, r"^7 row.*adv-000000: impressions \d+, clicks n/a"),
        ({"impressions": None}, r"^7 row.*adv-000000: impressions None"),
        ({"impressions": np.inf}, r"^7 row.*adv-000000"),
        ({"clicks": -1}, r"^7 row.*adv-000000"),
        ({"impressions": 10, "clicks": 11}, r"^7 row.*adv-000000: impressions 10(\.0)?, clicks 11"),
        ({"advertiser_id": None}, r"^7 row.*advertiser None"),
    ],
)
def test_rows_that_are_no_counts_are_refused_though_their_advertisers_have_others(tmp_path, broken, message):
    frame = experiment(200, seed=3)[["advertiser_id", "impressions", "clicks"]]
    pd.concat([frame, frame.head(7).assign(**broken)]).to_csv(tmp_path / "past.csv", index=False, na_rep="")
    with pytest.raises(UserError, match=message):
        planned_from(tmp_path / "past.csv")


def test_clicks_that_are_nan_are_refused_though_a_files_statistics_do_not_know_them(tmp_path):
    clicks = np.where(np.arange(200) == 7, np.nan, 5.0)
    names = [f"a{i}" for i in range(200)]
    past = pa.table({"advertiser_id": names, "impressions": np.full(200, 1000.0), "clicks": clicks})
    pq.write_table(past, tmp_path / "past.parquet")
    with pytest.raises(UserError, match=r"^1 row.*advertiser a7: impressions 1000\.0, clicks nan"):
        planned_from(tmp_path / "past.parquet")


def test_a_broken_row_far_down_is_the_users_mistake(tmp_path):
    lines = ["advertiser_id,impressions,clicks", *(f"a{i},100,3" for i in range(250_000)), "b,100,n/a"]
    (tmp_path / "past.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"cannot be read.*Line: 250002"):
        planned_from(tmp_path / "past.csv")


def test_a_plan_from_a_database_names_what_can_be_read(tmp_path):
    with pytest.raises(UserError, match="CSV or Parquet") as refused:
        planned_from(tmp_path / "past.duckdb")
    assert "--query" not in str(refused.value)


@pytest.mark.parametrize("power", [0.001, 0.05])
def test_a_power_that_no_effect_has_too_is_refused(power):
    with pytest.raises(UserError, match=r"rejects with probability 0\.05\. Ask for more power"):
        plan(0.05, 0.03, 10_000, power=power)


def test_a_plan_scales_with_the_root_of_advertisers():
    curve = plan(0.05, 0.03, 10_000).curve
    assert [point.advertisers for point in curve] == [2500, 5000, 10_000, 20_000, 40_000]
    assert curve[0].standard_error == pytest.approx(0.06)


@pytest.mark.parametrize(
    "odd",
    [
        {"effect": 0.0},
        {"effect": math.inf},
        {"effect": 1e-200},
        {"standard_error": math.inf},
        {"standard_error": math.nan},
        {"level": 1 - 1e-16},
        {"power": 1.0},
        {"power": 0.0},
        {"treatment_share": 3.0},
    ],
)
def test_what_no_experiment_can_have_is_refused(odd):
    with pytest.raises(UserError, match="not 0"):
        plan(**{"effect": 0.05, "standard_error": 0.03, "advertisers": 10_000} | odd)
