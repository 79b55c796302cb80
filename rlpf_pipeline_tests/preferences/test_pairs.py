"""The SELECTs of pairs and priors alone, on variants made by hand: labels, filters, the prior's strength."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import betainc, betaln, digamma, expit, log_expit, polygamma
from scipy.stats import beta
from statsmodels.stats.proportion import proportions_ztest

from rlpf_pipeline.contracts import CTR_PRIORS
from rlpf_pipeline.warehouse import Warehouse

SOURCE_CTR, STRENGTH = 0.011, 200.0
NO_FILTER = {
    "first_ad": 0,
    "last_ad": 1_000_000,
    "min_impressions": 1,
    "min_effect": 0.0,
    "max_p_value": None,
    "max_pairs_per_ad": None,
    "min_evenness": 0.0,
    "weigh_evenness": False,
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    with Warehouse(tmp_path_factory.mktemp("pairs") / "w.duckdb") as warehouse:
        yield warehouse


def fill(warehouse, ads):
    """The tables ads and variants, from ads of (impressions, clicks) each; variants v0, v1, … in order."""
    names = [{"ad": ad, "ad_id": f"{ad:04}", "source": "test", "split": "train"} for ad in range(len(ads))]
    rows = [
        {"ad": ad, "variant_id": f"v{place}", "impressions": n, "clicks": k, "split": "train"}
        for ad, texts in enumerate(ads)
        for place, (n, k) in enumerate(texts)
    ]
    variants = [{"variant": number, **row} for number, row in enumerate(rows)]
    warehouse.replace_table("ads", pa.Table.from_pylist(names))
    warehouse.replace_table("variants", pa.Table.from_pylist(variants))


def pairs_of(warehouse, counts, **filters):
    """Pairs from (left impressions, left clicks, right impressions, right clicks), one ad each, in order."""
    fill(warehouse, [((nl, kl), (nr, kr)) for nl, kl, nr, kr in counts])
    return pairs_in(warehouse, **filters)


def pairs_in(warehouse, source_ctr=SOURCE_CTR, strength=STRENGTH, **filters):
    priors = pa.table({"source": ["test"], "ctr": [source_ctr], "prior_strength": [strength]})
    warehouse.replace_table("ctr_priors", priors)
    with warehouse.parts("marts/pairs") as write:
        write(NO_FILTER | filters)
    warehouse.run_view("marts/preference_pairs")
    return warehouse.query("FROM preference_pairs ORDER BY ad_id, left_id, right_id").to_pylist()


def posteriors(counts, source_ctr, strength):
    """a and b of the left and of the right side, from (pairs, 4) counts."""
    nl, kl, nr, kr = np.array(counts, float).T
    centre = (kl + kr + 1) / (nl + nr + 1 / source_ctr)
    return (
        centre * strength + kl,
        (1 - centre) * strength + nl - kl,
        centre * strength + kr,
        (1 - centre) * strength + nr - kr,
    )


NODES, WEIGHTS = np.polynomial.legendre.leggauss(300)


def exact_probability(al, bl, ar, br):
    """P(CTR_left > CTR_right): odds are ratios of gammas, so it is P(W + V < 1), W ~ Beta(ar, al), V ~ Beta(bl, br).

    Integrated over V's log odds, nine standard deviations to both sides, which wants b that are not tiny: where the
    smallest of all is a b, clicks and views change places.
    """
    mirrored = np.minimum(bl, br) < np.minimum(al, ar)
    al, bl, ar, br = np.where(mirrored, (br, ar, bl, al), (al, bl, ar, br))
    mean, deviation = digamma(bl) - digamma(br), np.sqrt(polygamma(1, bl) + polygamma(1, br))
    log_odds = mean[:, None] + 9 * deviation[:, None] * NODES
    density = np.exp(bl[:, None] * log_expit(log_odds) + br[:, None] * log_expit(-log_odds) - betaln(bl, br)[:, None])
    density *= 9 * deviation[:, None] * WEIGHTS
    assert density.sum(axis=1) == pytest.approx(1, abs=1e-3)
    return (density * betainc(ar[:, None], al[:, None], expit(-log_odds))).sum(axis=1)


def test_integration_by_two_ways_gives_the_same():
    counts = [(3000, 33, 3000, 40), (100, 1, 100, 5), (100, 0, 100, 0), (500, 0, 500, 4), (100, 1, 90000, 990)]
    for al, bl, ar, br in zip(*posteriors(counts, SOURCE_CTR, STRENGTH), strict=True):
        left, right = beta(al, bl), beta(ar, br)
        ends, inner = left.ppf([1e-12, 1 - 1e-12]), left.ppf([0.01, 0.5, 0.99])
        expected = quad(lambda x, left=left, right=right: left.pdf(x) * right.cdf(x), *ends, points=inner, limit=400)[0]
        assert exact_probability(*np.array([[al], [bl], [ar], [br]]))[0] == pytest.approx(expected, abs=1e-9)


SHOWN = [
    (n, k) for n in (10, 100, 1000, 20_000, 1_000_000) for k in (0, 1, 2, 4, 8, 20, 100, n // 10, n // 4) if 4 * k <= n
]
GRID = [(*left, *right) for left in SHOWN for right in SHOWN]


@pytest.mark.parametrize("source_ctr", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("strength", [1, 5, 30, 200, 1000])
def test_posterior_is_near_exact_integration_on_a_grid(scratch, source_ctr, strength):
    al, bl, ar, br = posteriors(GRID, source_ctr, strength)
    assert max((al / (al + bl)).max(), (ar / (ar + br)).max()) < 0.3
    p = [pair["p_left_better"] for pair in pairs_of(scratch, GRID, source_ctr=source_ctr, strength=strength)]
    error = np.abs(p - exact_probability(al, bl, ar, br))
    assert error.max() < 0.015
    assert error[np.minimum(al, ar) < 1].max(initial=0) < 0.004


HIGH = [(n, round(n * share)) for n in (10, 100, 1000, 20_000) for share in (0, 0.1, 0.35, 0.6, 0.9, 1)]
HIGH_GRID = [(*left, *right) for left in HIGH for right in HIGH]


@pytest.mark.parametrize("strength", [1, 5, 30, 200])
def test_posterior_of_high_ctrs_is_as_near_as_the_fewest_clicks_or_views_let_it(scratch, strength):
    sides = np.array(posteriors(HIGH_GRID, SOURCE_CTR, strength))
    p = [pair["p_left_better"] for pair in pairs_of(scratch, HIGH_GRID, strength=strength)]
    error = np.abs(p - exact_probability(*sides))
    fewest = sides.min(axis=0)
    assert error.max() < 0.16
    assert error[fewest >= 1].max() < 0.05
    assert error[fewest >= 4].max() < 0.03


def test_pairs_of_ads_of_several_texts_are_those_worked_out_one_by_one(scratch):
    rng = np.random.default_rng(7)
    ads = []
    for _ in range(200):
        impressions = 1 + rng.lognormal(6, 1.5, rng.integers(1, 7)).astype(int)
        ctr = np.exp(rng.normal(-4, 0.8) + rng.normal(0, 0.3, len(impressions)))
        ads.append([(int(n), int(rng.binomial(n, share))) for n, share in zip(impressions, ctr, strict=True)])
    sides, weights = [], []
    for own in ads:
        shown = np.array([counts for counts in own if counts[0] >= 100], float).reshape(-1, 2)
        impressions, clicks = shown.sum(axis=0)
        centre = (clicks + 1) / (impressions + 1 / SOURCE_CTR)
        for (nl, kl), (nr, kr) in combinations(shown, 2):
            posterior = [(centre * STRENGTH + k, (1 - centre) * STRENGTH + n - k) for n, k in ((nl, kl), (nr, kr))]
            sides.append([*posterior[0], *posterior[1], kl / nl, kr / nr])
            evenness = impressions**2 / (len(shown) * (shown[:, 0] ** 2).sum())
            weights.append(evenness * np.log(1 + min(nl, nr)))
    fill(scratch, ads)
    pairs = pairs_in(scratch, min_impressions=100, weigh_evenness=True)
    al, bl, ar, br, left_ctr, right_ctr = np.array(sides).T
    effect = digamma(al) - digamma(bl) - digamma(ar) + digamma(br)
    deviation = np.sqrt(sum(polygamma(1, shape) for shape in (al, bl, ar, br)))
    assert [pair["left_clicks"] / pair["left_impressions"] for pair in pairs] == left_ctr.tolist()
    assert [pair["right_clicks"] / pair["right_impressions"] for pair in pairs] == right_ctr.tolist()
    assert [pair["effect"] for pair in pairs] == pytest.approx(effect, abs=1e-7)
    assert [pair["z"] for pair in pairs] == pytest.approx(effect / deviation, abs=1e-7)
    assert [pair["p_left_better"] for pair in pairs] == pytest.approx(exact_probability(al, bl, ar, br), abs=0.015)
    assert [pair["weight"] for pair in pairs] == pytest.approx(weights)


def test_p_value_is_the_pooled_z_test_of_statsmodels(scratch):
    counts = [
        (3000, 33, 3000, 40),
        (3000, 60, 3100, 20),
        (100, 1, 120, 5),
        (500, 0, 500, 4),
        (100000, 4000, 100000, 1000),
    ]
    for (nl, kl, nr, kr), pair in zip(counts, pairs_of(scratch, counts), strict=True):
        assert pair["p_value"] == pytest.approx(proportions_ztest([kl, kr], [nl, nr])[1], rel=1e-6)


def test_ties_and_no_clicks_give_no_preference(scratch):
    for pair in pairs_of(scratch, [(3000, 30, 3000, 30), (200, 0, 200, 0), (200, 200, 200, 200)]):
        assert (pair["z"], pair["p_left_better"], pair["p_value"]) == (0.0, 0.5, 1.0)


counts = st.integers(1, 50_000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=20))
def test_exchanging_the_sides_turns_p_into_its_complement(scratch, sides):
    forth = pairs_of(scratch, [(*left, *right) for left, right in sides])
    back = pairs_of(scratch, [(*right, *left) for left, right in sides])
    for one, other in zip(forth, back, strict=True):
        assert one["p_left_better"] + other["p_left_better"] == pytest.approx(1, abs=1e-15)
        assert one["z"] == -other["z"]
        assert one["p_value"] == pytest.approx(other["p_value"], rel=1e-9)


def test_weight_is_log_exposure_of_the_smaller_side(scratch):
    weights = [pair["weight"] for pair in pairs_of(scratch, [(99, 1, 5000, 5), (20000, 5, 9999, 7)])]
    assert weights == pytest.approx([np.log(100), np.log(10_000)])


def test_thinly_shown_variants_make_no_pair(scratch):
    assert len(pairs_of(scratch, [(99, 5, 1000, 5), (100, 5, 1000, 5)], min_impressions=100)) == 1


def test_a_posterior_by_hand(scratch):
    # One click on two impressions against none on two: centre (1 + 1) / (4 + 1/.011), a = 200 centre + clicks.
    (pair,) = pairs_of(scratch, [(2, 1, 2, 0)])
    a = 200 * 2 / (4 + 1 / 0.011)
    variance = polygamma(1, a + 1) + polygamma(1, 201 - a) + polygamma(1, a) + polygamma(1, 202 - a)
    effect = digamma(a + 1) - digamma(201 - a) - digamma(a) + digamma(202 - a)
    assert pair["effect"] == pytest.approx(effect, abs=1e-7)
    assert pair["z"] == pytest.approx(effect / variance**0.5, abs=1e-7)


def test_a_click_on_every_one_of_many_impressions_leaves_what_the_prior_says_of_the_rest(scratch):
    """Both sides have the same b, (1 - centre) strength, which is lost where it is added to many impressions first."""
    many = 2**40
    centre = (many + 2) / (many + 1 + 1 / SOURCE_CTR)
    (pair,) = pairs_of(scratch, [(many, many, 1, 1)])
    assert pair["effect"] == pytest.approx(digamma(centre * STRENGTH + many) - digamma(centre * STRENGTH + 1), abs=1e-6)
    assert pair["p_left_better"] == pytest.approx(0.5, abs=1e-6)


def test_filters_keep_what_they_say(scratch):
    counts = [(5000, 50, 5000, 52), (5000, 50, 5000, 90), (5000, 50, 5000, 200)]
    everything = pairs_of(scratch, counts)
    p_values = sorted(pair["p_value"] for pair in everything)
    effects = sorted(abs(pair["effect"]) for pair in everything)
    assert [pair["ad_id"] for pair in pairs_of(scratch, counts, max_p_value=p_values[1])] == ["0001", "0002"]
    assert [pair["ad_id"] for pair in pairs_of(scratch, counts, min_effect=effects[2])] == ["0002"]


def test_the_cap_samples_pairs_of_large_ads_only_and_always_the_same(scratch):
    fill(scratch, [[(1000, 10 + place) for place in range(6)], [(1000, 10), (1000, 20), (1000, 30)]])
    everything = {(p["ad_id"], p["left_id"], p["right_id"]) for p in pairs_in(scratch)}
    capped = [(p["ad_id"], p["left_id"], p["right_id"]) for p in pairs_in(scratch, max_pairs_per_ad=4)]
    assert len(everything) == 15 + 3
    assert [ad for ad, *_ in capped] == ["0000"] * 4 + ["0001"] * 3
    assert set(capped) < everything
    assert capped == [(p["ad_id"], p["left_id"], p["right_id"]) for p in pairs_in(scratch, max_pairs_per_ad=4)]


def test_unevenly_delivered_ads_are_left_out_or_weigh_less(scratch):
    # Effective texts of 100 and 300 impressions: 400^2 / (100^2 + 300^2) = 1.6, of two: evenness 0.8.
    counts = [(100, 1, 300, 5), (200, 1, 200, 5)]
    assert [pair["ad_id"] for pair in pairs_of(scratch, counts, min_evenness=0.81)] == ["0001"]
    assert [pair["ad_id"] for pair in pairs_of(scratch, counts, min_evenness=0.8)] == ["0000", "0001"]
    plain = [pair["weight"] for pair in pairs_of(scratch, counts)]
    weighed = [pair["weight"] for pair in pairs_of(scratch, counts, weigh_evenness=True)]
    assert weighed[0] / weighed[1] == pytest.approx(0.8 * plain[0] / plain[1], rel=1e-6)


def strength_of(warehouse, ads, prior_strength=None):
    fill(warehouse, ads)
    warehouse.run_sql("marts/ctr_priors", {"prior_strength": prior_strength})
    (row,) = warehouse.query("FROM ctr_priors").to_pylist()
    assert tuple(row) == CTR_PRIORS.column_names
    return row["prior_strength"]


@pytest.mark.parametrize("strength", [100.0, 1000.0])
def test_the_prior_strength_is_found_from_beta_binomial_texts_whatever_their_ads(scratch, strength):
    rng = np.random.default_rng(5)
    centres = 0.03 * np.exp(0.45 * rng.standard_normal((4000, 1)))
    ctr = rng.beta(centres * strength, (1 - centres) * strength, (4000, 4))
    impressions = 1 + rng.lognormal(7, 1, ctr.shape).astype(int)
    clicks = rng.binomial(impressions, ctr)
    found = strength_of(scratch, np.stack([impressions, clicks], axis=-1).tolist())
    assert found == pytest.approx(strength, rel=0.1)


def test_texts_that_differ_no_more_than_chance_get_the_strongest_prior(scratch):
    assert strength_of(scratch, [[(1000, 30), (1000, 30)]] * 5) == 1e6


def test_texts_without_clicks_tell_nothing_of_the_strength(scratch):
    assert strength_of(scratch, [[(1000, 0), (1000, 0)], [(10, 1)]]) == 1e6


def test_a_given_strength_is_taken_as_it_is(scratch):
    assert strength_of(scratch, [[(1000, 10), (1000, 90)]], prior_strength=77.0) == 77.0
