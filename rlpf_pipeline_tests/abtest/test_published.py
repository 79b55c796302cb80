"""The log-binomial fit of data sets whose results others have published."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.special import gammaln

from rlpf_pipeline.abtest import log_binomial

HEART_ATTACKS = """
1 1: 49/2611 1/74 2/96 30/2888 0/81 8/155 16/1011 1/44 4/104
1 2: 8/143 1/7 1/7 14/223 0/10 1/15 5/77 1/3 1/6
1 3: 3/15 0/0 0/1 8/29 0/0 1/2 4/11 0/0 2/4
2 1: 72/1904 3/46 4/53 170/2812 4/87 7/113 67/1084 1/50 9/65
2 2: 21/239 0/7 1/4 52/398 3/11 8/22 27/174 0/6 4/8
2 3: 11/33 1/1 3/4 15/56 1/2 1/2 10/29 0/2 1/3
3 1: 75/442 3/10 2/8 112/801 1/10 8/25 63/329 2/12 3/11
3 2: 19/86 0/2 1/2 36/198 3/5 3/4 25/95 2/5 0/4
3 3: 8/17 0/0 0/0 15/31 0/0 0/1 7/18 0/0 0/1
"""
"""Deaths of the patients of ASSENT-2, by age and severity: for each delay of the treatment in turn, by region."""


def heart_attacks() -> pd.DataFrame:
    rows = []
    for line in HEART_ATTACKS.strip().splitlines():
        level, _, cells = line.partition(": ")
        for number, cell in enumerate(cells.split()):
            deaths, patients = map(int, cell.split("/"))
            rows.append((*level.split(), str(number // 3), str(number % 3), deaths, patients))
    return pd.DataFrame(rows, columns=["age", "severity", "delay", "region", "deaths", "patients"])


def test_heart_attacks_reach_the_likelihood_that_marschner_and_gillett_publish():
    """Biostatistics 13 (2012), with the R package logbin: log likelihood -179.9016, binomial constants included. R's
    glm is at -186.7366 after 10,000 steps; statsmodels leaves the domain."""
    rows = heart_attacks()
    assert (rows["deaths"].sum(), rows["patients"].sum()) == (1045, 16949)
    fit = log_binomial(rows, "~ age + severity + delay + region", successes="deaths", trials="patients")
    k, n = rows["deaths"].to_numpy(), rows["patients"].to_numpy()
    constants = (gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)).sum()
    assert fit.status == "converged"
    assert fit.n == 74
    assert fit.log_likelihood + constants == pytest.approx(-179.9016, abs=5e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        design = pd.get_dummies(rows[["age", "severity", "delay", "region"]], drop_first=True, dtype=float)
        family = sm.families.Binomial(sm.families.links.Log())
        shown = n > 0
        default = sm.GLM(np.column_stack([k, n - k])[shown], sm.add_constant(design)[shown], family).fit()
    assert not default.converged


def test_breast_cancer_as_published_by_spiegelman_and_hertzmark():
    """American Journal of Epidemiology 162 (2005): relative risks and intervals by SAS's GENMOD, which inverts the
    observed information, sum x x' (n - k) mu / (1 - mu)^2."""
    rows = pd.DataFrame(
        {
            "receptor": ["high"] * 3 + ["low"] * 3,
            "stage": ["I", "II", "III"] * 2,
            "deaths": [5, 17, 9, 2, 9, 12],
            "patients": [55, 74, 15, 12, 22, 14],
        }
    )
    fit = log_binomial(rows, "~ receptor + stage", successes="deaths", trials="patients")
    beta = np.array(list(fit.coefficients.values()))
    x = np.column_stack([np.ones(6), rows["receptor"] == "low", rows["stage"] == "II", rows["stage"] == "III"])
    mean = np.exp(x @ beta)
    weight = (rows["patients"] - rows["deaths"]).to_numpy() * mean / (1 - mean) ** 2
    reach = 1.959964 * np.sqrt(np.diag(np.linalg.inv(x.T @ np.diag(weight) @ x)))
    assert np.exp(beta[1:]) == pytest.approx([1.5583, 2.5382, 5.8680], abs=5e-5)
    assert np.exp(beta - reach)[1:] == pytest.approx([1.0487, 1.1734, 2.7458], abs=5.1e-5)
    assert np.exp(beta + reach)[1:] == pytest.approx([2.3155, 5.4903, 12.5406], abs=5.1e-5)
