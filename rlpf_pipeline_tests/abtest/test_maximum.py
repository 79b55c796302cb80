"""Maxima on the boundary, where iteratively reweighted least squares fails: by hand, from the literature, and against
scipy's constrained optimiser."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from rlpf_pipeline.abtest import log_binomial, relative_risk
from rlpf_pipeline.abtest.cells import Rows
from rlpf_pipeline.abtest.log_binomial import estimate
from rlpf_pipeline.abtest.maximum import MANY, Counts, rough_maximum
from rlpf_pipeline.errors import UserError

# Class, sex, age, died, survived: the British Board of Trade's report of 1912 (R: datasets::Titanic), passengers only.
TITANIC = """
1st male child 0 5|1st male adult 118 57|1st female child 0 1|1st female adult 4 140
2nd male child 0 11|2nd male adult 154 14|2nd female child 0 13|2nd female adult 13 80
3rd male child 35 13|3rd male adult 387 75|3rd female child 17 14|3rd female adult 89 76
"""


def titanic() -> pd.DataFrame:
    rows = [line.split() for line in TITANIC.replace("|", "\n").split("\n") if line]
    frame = pd.DataFrame(rows, columns=["passenger_class", "sex", "age", "died", "survived"])
    frame = frame.astype({"died": int, "survived": int})
    return frame.assign(aboard=frame["died"] + frame["survived"])


def single_trials(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per person."""
    people = [
        frame.assign(alive=alive).loc[frame.index.repeat(frame[n])] for alive, n in ((1, "survived"), (0, "died"))
    ]
    return pd.concat(people, ignore_index=True).assign(one=1)


def constrained_likelihood(x: np.ndarray, k: np.ndarray, n: np.ndarray) -> float:
    """The maximum by sequential quadratic programming under x'b <= 0."""
    missed = n > k

    def loss(b):
        eta = np.minimum(x @ b, -1e-13)
        return -(k * eta + np.where(missed, (n - k) * np.log(-np.expm1(eta)), 0)).sum()

    def slope(b):
        eta = np.minimum(x @ b, -1e-13)
        return -x.T @ (k - np.where(missed, (n - k) / np.expm1(-eta), 0))

    start = np.zeros(x.shape[1])
    start[0] = math.log(k.sum() / n.sum()) - 0.01
    inside = {"type": "ineq", "fun": lambda b: -(x @ b), "jac": lambda b: -x}
    found = optimize.minimize(
        loss, start, jac=slope, method="SLSQP", constraints=inside, options={"maxiter": 2000, "ftol": 1e-14}
    )
    found.x[0] -= max((x @ found.x).max() + 1e-12, 0)  # back inside, where its tolerance let it out
    return -loss(found.x)


def test_titanic_reaches_the_boundary_maximum_where_step_halving_stalls_at_644():
    frame = titanic()
    fit = log_binomial(frame, "~ passenger_class + sex + age", successes="survived", trials="aboard")
    assert fit.status == "boundary"
    assert fit.log_likelihood == pytest.approx(-624.98, abs=0.005)
    child_2nd = ("Intercept", "passenger_class[T.2nd]", "age[T.child]")
    assert fit.coefficients["Intercept"] + fit.coefficients["age[T.child]"] == pytest.approx(0, abs=1e-9)
    assert sum(fit.coefficients[name] for name in child_2nd) < 0


def test_one_row_per_person_gives_what_counts_give():
    """Naive errors do not know how trials are grouped; robust ones do."""
    frame = titanic()
    counts = log_binomial(frame, "~ passenger_class + sex + age", successes="survived", trials="aboard")
    people = log_binomial(single_trials(frame), "~ passenger_class + sex + age", successes="alive", trials="one")
    assert people.status == "boundary"
    assert people.coefficients == pytest.approx(counts.coefficients, abs=1e-8)
    assert people.standard_errors["naive"] == pytest.approx(counts.standard_errors["naive"], rel=1e-6)


TEN = pd.DataFrame({"x": np.arange(1.0, 11.0), "y": [0, 0, 0, 0, 1, 0, 1, 1, 1, 1], "one": 1})
"""Petersen and Deddens' ten points: the mean at x = 10 is 1, so log mean = b (x - 10)."""


def test_ten_points_on_the_boundary_solved_in_one_dimension():
    def loss(b):
        eta = b * (TEN["x"] - 10)[:-1]
        return -(TEN["y"][:-1] * eta + (1 - TEN["y"][:-1]) * np.log(-np.expm1(eta))).sum()

    slope = optimize.minimize_scalar(loss, bounds=(0.01, 2), method="bounded", options={"xatol": 1e-12}).x
    fit = log_binomial(TEN, "~ x", successes="y", trials="one")
    assert fit.status == "boundary"
    assert fit.coefficients["x"] == pytest.approx(slope, abs=1e-7)
    assert fit.coefficients["Intercept"] == pytest.approx(-10 * slope, abs=1e-6)


def test_boundary_errors_are_those_of_the_model_with_the_held_row_built_in():
    """Naive: 1 / sqrt of the expected information of b in log mean = b (x - 10)."""
    fit = log_binomial(TEN, "~ x", successes="y", trials="one")
    distance = (TEN["x"] - 10).to_numpy()[:-1]
    mean = np.exp(fit.coefficients["x"] * distance)
    error = (distance**2 * mean / (1 - mean)).sum() ** -0.5
    assert fit.standard_errors["naive"]["x"] == pytest.approx(error, rel=1e-9)
    assert fit.standard_errors["naive"]["Intercept"] == pytest.approx(10 * error, rel=1e-9)


def test_boundary_errors_are_the_limit_of_the_copy_method():
    """A million copies of the data and one with successes and failures exchanged have an inner maximum."""
    copies = 10**6
    many = TEN.assign(k=np.where(TEN["y"] == 1, copies, 1), n=copies + 1)
    inner = log_binomial(many, "~ x", successes="k", trials="n")
    fit = log_binomial(TEN, "~ x", successes="y", trials="one")
    assert inner.status == "converged"
    for name in ("Intercept", "x"):
        assert fit.coefficients[name] == pytest.approx(inner.coefficients[name], rel=1e-3)
        error = inner.standard_errors["naive"][name] * (copies + 1) ** 0.5
        assert fit.standard_errors["naive"][name] == pytest.approx(error, rel=1e-2)


@pytest.mark.parametrize("seed", range(8))
def test_a_coefficient_that_rows_at_mean_1_fix_has_no_error(seed):
    """Everything is clicked where past is 3 and z is 0, in both arms: their ratio is 1, however z and past may move."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"treatment": np.arange(24) % 2, "past": np.arange(24) // 6, "z": rng.normal(size=24)})
    rows.loc[rows["past"] == 3, "z"] = 0.0
    rows["k"] = np.where(rows["past"] == 3, 10, 1 + rng.binomial(5, 0.5, 24))
    fit = log_binomial(rows.assign(n=10), "~ treatment + past + z", successes="k", trials="n")
    assert fit.status == "boundary"
    assert fit.coefficients["treatment"] == pytest.approx(0, abs=1e-12)
    assert all(errors["treatment"] == 0 for errors in fit.standard_errors.values())
    assert all(errors["z"] > 0.01 for errors in fit.standard_errors.values())
    with pytest.raises(UserError, match="these alone settle the relative risk"):
        relative_risk(fit, "treatment")


def test_an_arm_where_every_trial_succeeds_has_the_error_of_the_other_arm():
    """Relative risk 100/100 over 50/100 = 2; the variance of log(50/100) is 1/50 - 1/100."""
    rows = pd.DataFrame({"treatment": [0, 1], "k": [50, 100], "n": [100, 100]}).loc[[0, 0, 1, 1]]
    fit = log_binomial(rows, "~ treatment", successes="k", trials="n")
    assert fit.status == "boundary"
    assert math.exp(fit.coefficients["treatment"]) == pytest.approx(2)
    assert fit.standard_errors["naive"]["treatment"] == pytest.approx((0.5 * (1 / 50 - 1 / 100)) ** 0.5)


@pytest.mark.parametrize("seed", range(40))
def test_no_constrained_optimiser_finds_a_higher_likelihood(seed):
    """Single trials with means near 1 (mostly boundary maxima) and grouped ones."""
    rng = np.random.default_rng(seed)
    number, covariates = int(rng.integers(20, 150)), int(rng.integers(1, 4))
    x = np.column_stack([np.ones(number), rng.normal(size=(number, covariates)), rng.integers(0, 2, number)])
    mean = np.minimum(np.exp(x @ np.append(-0.6, rng.normal(0, 0.4, covariates + 1))), 1)
    n = np.ones(number) if seed % 2 else rng.integers(1, 20, number).astype(float)
    k = rng.binomial(n.astype(int), mean).astype(float)
    fit = estimate(Counts(x, k, n), [str(j) for j in range(x.shape[1])])
    assert fit.status in ("converged", "boundary")
    assert (x @ fit.beta).max() <= 1e-9
    assert fit.log_likelihood >= constrained_likelihood(x, k, n) - 1e-6
    assert all(np.isfinite(matrix).all() for matrix in fit.covariances.values())


@pytest.mark.parametrize("trials", [5, 10, 40])
def test_a_segment_of_maxima_is_no_estimate(trials):
    """With a share of misses where a = b = 0 only, the means are mu, mu exp(a), mu exp(b) and 1 = mu exp(a + b): the
    likelihood depends on the sum of a and b alone. Modified Poisson is symmetric in a and b."""
    rows = pd.DataFrame({"a": [0, 1, 0, 1], "b": [0, 0, 1, 1], "n": trials, "k": trials})
    rows.loc[0, "k"] = trials * 3 // 5
    fit = log_binomial(pd.concat([rows] * 3), "~ a + b", successes="k", trials="n")
    assert fit.status == "modified-poisson"
    assert fit.coefficients["a"] == pytest.approx(fit.coefficients["b"], rel=1e-9)
    assert all(0 < error < 1 for errors in fit.standard_errors.values() for error in errors.values())


def test_units_and_offsets_of_a_covariate_do_not_matter():
    rng = np.random.default_rng(3)
    year = rng.integers(1990, 2020, 400)
    k = rng.binomial(500, 0.05 * np.exp(0.02 * (year - 2005)))
    rows = pd.DataFrame({"year": year, "since": (year - 2005) / 1e-7, "k": k, "n": 500})
    plain = log_binomial(rows, "~ year", successes="k", trials="n")
    moved = log_binomial(rows, "~ since", successes="k", trials="n")
    assert plain.log_likelihood == pytest.approx(moved.log_likelihood, rel=1e-13)
    assert plain.coefficients["year"] == pytest.approx(moved.coefficients["since"] * 1e7, rel=1e-7)
    assert plain.standard_errors["hc3"]["year"] == pytest.approx(moved.standard_errors["hc3"]["since"] * 1e7, rel=1e-7)


@pytest.mark.parametrize("rate", [0.001, 0.2, 0.9, 1 - 1e-7])
def test_rows_many_enough_for_single_precision_have_the_maximum_of_a_part(rate):
    generator = np.random.default_rng(1)
    x = np.column_stack([np.ones(500), np.arange(500) % 2, generator.standard_t(3, 500)])
    n = np.ceil(np.exp(generator.normal(10, 2, 500)))
    k = generator.binomial(n.astype(int), rate ** np.exp(0.3 * generator.normal(size=500))).astype(float)
    part, names = Counts(x, k, n), ["Intercept", "treatment", "covariate"]
    times = MANY // 500 + 1
    whole = Counts(np.tile(x, (times, 1)), np.tile(k, times), np.tile(n, times))
    found, expected = estimate(whole, names), estimate(part, names)
    assert found.status == expected.status
    error = np.sqrt(np.diag(expected.covariances["naive"]))
    assert (np.abs(found.beta - expected.beta) <= 1e-7 * error).all()
    assert found.log_likelihood == pytest.approx(times * expected.log_likelihood, rel=1e-12)
    assert found.covariances["naive"] * times == pytest.approx(expected.covariances["naive"], rel=1e-7)


def test_single_precision_is_left_where_means_are_too_near_to_1_for_it():
    x = np.ones((MANY, 1))
    near, nearer = (Counts(x, np.full(MANY, trials - 1.0), np.full(MANY, trials)) for trials in (1e6, 1e9))
    assert rough_maximum(near, np.array([math.log(0.5)]))[0] == pytest.approx([math.log(1 - 1e-6)], abs=1e-8)
    start = np.array([-1e-50])
    assert rough_maximum(nearer, start) == (start, 0)
    assert estimate(nearer, ["Intercept"]).beta == pytest.approx([math.log1p(-1e-9)], rel=1e-6)


def test_covariances_of_some_coefficients_are_those_among_all():
    generator = np.random.default_rng(2)
    x = np.column_stack([np.ones(300), np.arange(300) % 2, generator.normal(size=(300, 2))])
    n = np.ceil(np.exp(generator.normal(6, 1, 300)))
    counts, names = Counts(x, generator.binomial(n.astype(int), 0.04).astype(float), n), list("abcd")
    rows = Rows(counts.k, counts.n, clusters=np.arange(300) // 3)
    everything, some = estimate(counts, names, rows), estimate(counts, names, rows, of=slice(1, 3))
    assert some.covariances.keys() == {"naive", "quasi", "hc0", "hc1", "hc3", "cluster"}
    for kind, matrix in some.covariances.items():
        assert matrix == pytest.approx(everything.covariances[kind][1:3, 1:3], rel=1e-9)
