import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import digamma, polygamma
from scipy.stats import beta, norm
from statsmodels.stats.proportion import proportions_ztest

from rlpf_pipeline.contracts import (
    ADS,
    CTR_PRIORS,
    DELIVERY,
    LABEL_COUNTS,
    PAIRS,
    PREFERENCE_PAIRS,
    VARIANT_PERFORMANCE,
    VARIANTS,
)
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.preferences.stages import build_preference_pairs, build_variant_performance, export_snapshot
from rlpf_pipeline.settings import PairSettings
from rlpf_pipeline.warehouse import Warehouse
from rlpf_pipeline_tests.preferences.raw_rows import SCHEMA, raw_row, raw_table

SOURCE_CTR, STRENGTH = 0.011, 200.0
SHOWN = (VARIANT_PERFORMANCE, PREFERENCE_PAIRS, ADS, VARIANTS, PAIRS, LABEL_COUNTS)
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


def pairs_in(warehouse, **filters):
    priors = pa.table({"source": ["test"], "ctr": [SOURCE_CTR], "prior_strength": [STRENGTH]})
    warehouse.replace_table("ctr_priors", priors)
    with warehouse.parts("marts/pairs") as write:
        write(NO_FILTER | filters)
    warehouse.run_view("marts/preference_pairs")
    return warehouse.query("FROM preference_pairs ORDER BY ad_id, left_id, right_id").to_pylist()


def exact_probability(nl, kl, nr, kr):
    """P(CTR_left > CTR_right) by numeric integration of the left density times the right distribution function."""
    centre = (kl + kr + 1) / (nl + nr + 1 / SOURCE_CTR)
    a, b = centre * STRENGTH, (1 - centre) * STRENGTH
    left, right = beta(a + kl, b + nl - kl), beta(a + kr, b + nr - kr)
    ends = left.ppf([1e-12, 1 - 1e-12])
    return quad(lambda x: left.pdf(x) * right.cdf(x), *ends, points=left.ppf([0.01, 0.5, 0.99]), limit=400)[0]


COUNTS = [
    (3000, 33, 3000, 40),
    (3000, 60, 3100, 20),
    (100, 1, 100, 5),
    (100, 0, 100, 0),
    (500, 0, 500, 4),
    (100, 1, 90000, 990),
]


def test_posterior_is_near_exact_integration_the_nearer_the_more_clicks(scratch):
    for counts, pair in zip(COUNTS, pairs_of(scratch, COUNTS), strict=True):
        nl, kl, nr, kr = counts
        fewest_clicks = STRENGTH * (kl + kr + 1) / (nl + nr + 1 / SOURCE_CTR) + min(kl, kr)
        bound = 0.01 if fewest_clicks >= 32 else 0.02 if fewest_clicks >= 16 else 0.05
        assert pair["p_left_better"] == pytest.approx(exact_probability(*counts), abs=bound), counts


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
    assert pair["p_left_better"] == pytest.approx(norm.cdf(effect / variance**0.5), abs=1e-6)


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


def test_delivery_tells_evenness_and_what_early_winners_gained(tmp_path):
    rows = [
        raw_row("a", "v0", "one", 100, 9, period="2025-01-01"),
        raw_row("a", "v1", "two", 100, 3, period="2025-01-01"),
        raw_row("a", "v0", "one", 500, 15, period="2025-01-02"),
        raw_row("a", "v1", "two", 100, 3, period="2025-01-02"),
        raw_row("b", "v0", "three", 300, 9),
        raw_row("b", "v1", "four", 100, 3),
        raw_row("c", "v0", "five", 100, 3),
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "raw.parquet")
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        metrics = build_variant_performance(warehouse, tmp_path / "raw.parquet", PairSettings(), seed=1)
        assert warehouse.columns("delivery") == [(column.name, column.type) for column in DELIVERY.columns]
        ads = {row["ad_id"]: row for row in warehouse.query("FROM delivery").to_pylist()}
    # a: 600 and 200 impressions; the early winner went from half of them to five sixths.
    assert ads["a"]["evenness"] == pytest.approx(800**2 / (2 * (600**2 + 200**2)))
    assert ads["a"]["early_winner_gain"] == pytest.approx(5 / 6 - 1 / 2)
    assert ads["b"]["evenness"] == pytest.approx(0.8)
    assert ads["b"]["early_winner_gain"] is None
    assert set(ads) == {"a", "b"}
    assert metrics["early_winner_gain"] == pytest.approx(1 / 3)


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


def test_noise_ceilings_are_means_over_the_pairs_with_a_winner(tmp_path):
    table = pa.Table.from_pylist(
        [
            raw_row("a", "v0", "one", 500, 5),
            raw_row("a", "v1", "two", 5000, 100),
            raw_row("b", "v0", "three", 2000, 40),
            raw_row("b", "v1", "four", 3000, 20),
            raw_row("c", "v0", "five", 100, 4),
            raw_row("c", "v1", "six", 200, 8),
        ],
        schema=SCHEMA,
    )
    _, metrics, *_ = build(tmp_path, table, validation=0, test=0, evaluation=0)
    a, b, c = pq.read_table(tmp_path / "w" / "pairs.parquet")["p_left_better"].to_pylist()
    p = {"a": a, "b": b, "c": c}
    sure = {ad: max(value, 1 - value) for ad, value in p.items()}
    assert metrics["tied_pairs"] == 1
    assert metrics["noise_ceiling"] == pytest.approx((sure["a"] + sure["b"]) / 2, abs=1e-12)
    assert metrics["noise_ceiling_from_100_impressions"] == pytest.approx(sure["a"], abs=1e-12)
    assert metrics["noise_ceiling_from_1000_impressions"] == pytest.approx(sure["b"], abs=1e-12)
    assert metrics["noise_ceiling_train"] == metrics["noise_ceiling"]
    assert metrics["noise_ceiling_test"] is None


def build(tmp_path, table, name="w", **pairs):
    pq.write_table(table, tmp_path / f"{name}.parquet")
    (tmp_path / name).mkdir()
    with Warehouse(tmp_path / f"{name}.duckdb") as warehouse:
        performance = build_variant_performance(warehouse, tmp_path / f"{name}.parquet", PairSettings(**pairs), seed=3)
        preferences = build_preference_pairs(warehouse, PairSettings(**pairs))
        snapshot = export_snapshot(warehouse, tmp_path / name)
        types = [warehouse.columns(contract.name) for contract in SHOWN]
    return performance, preferences, snapshot, types


def test_tables_are_those_of_the_contract(tmp_path):
    *_, types = build(tmp_path, raw_table(ads=10))
    for contract, columns in zip(SHOWN, types, strict=True):
        assert columns == [(column.name, column.type) for column in contract.columns]
    for contract in (ADS, VARIANTS, PAIRS):
        assert pq.read_table(tmp_path / "w" / f"{contract.name}.parquet").column_names == list(contract.column_names)


def test_equal_texts_of_an_ad_are_merged_and_counts_conserved(tmp_path):
    rows = [
        raw_row("a", "v2", "same", 1000, 10, period="1"),
        raw_row("a", "v1", "same", 500, 7, period="1"),
        raw_row("a", "v2", "same", 200, 2, period="2"),
        raw_row("a", "v3", "other", 900, 9),
    ]
    performance, preferences, snapshot, _ = build(tmp_path, pa.Table.from_pylist(rows, schema=SCHEMA))
    variants = pq.read_table(tmp_path / "w" / "variants.parquet").to_pylist()
    assert [(v["variant_id"], v["text"], v["impressions"], v["clicks"]) for v in variants] == [
        ("v1", "same", 1700, 19),
        ("v3", "other", 900, 9),
    ]
    assert (performance["impressions"], performance["clicks"]) == (2600, 28)
    assert (performance["raw_rows"], performance["ads"], performance["variants"]) == (4, 1, 2)
    assert preferences["pairs"] == snapshot["pairs"] == 1


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet") if path.is_file()}


def test_the_snapshot_does_not_depend_on_the_order_of_the_rows(tmp_path):
    table = raw_table(ads=300)
    build(tmp_path, table, "forth")
    build(tmp_path, table.take(list(range(table.num_rows))[::-1]), "back")
    assert len(files_in(tmp_path / "forth")) == 3
    assert files_in(tmp_path / "forth") == files_in(tmp_path / "back")


@pytest.mark.parametrize("filters", [{}, {"max_pairs_per_ad": 2}])
def test_tables_are_the_same_in_one_part_or_in_many(tmp_path, monkeypatch, filters):
    table = raw_table(ads=100, variants=4)
    build(tmp_path, table, "one", **filters)
    monkeypatch.setattr("rlpf_pipeline.preferences.stages.PART_ROWS", 90)
    build(tmp_path, table, "many", **filters)
    assert len(files_in(tmp_path / "many")) == 15
    for name in ("ads", "variants", "pairs"):
        one, many = (pq.read_table(tmp_path / run / f"{name}.parquet") for run in ("one", "many"))
        assert one.num_rows == {"ads": 100, "variants": 400, "pairs": 200 if filters else 600}[name]
        assert one.to_pylist() == many.to_pylist()


raw_rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["one", "two", "three"]), st.sampled_from("vw"),
              st.integers(1, 500), st.integers(0, 1)),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(raw_rows, st.randoms(use_true_random=False))
def test_counts_are_conserved_whatever_the_rows_and_their_order(tmp_path_factory, drawn, random):
    rows = [raw_row(ad, variant, text, n, min(k, n)) for ad, text, variant, n, k in drawn]
    expected = {}
    for row in rows:
        n, k, names = expected.get((row["ad_id"], row["text"]), (0, 0, []))
        expected[row["ad_id"], row["text"]] = n + row["impressions"], k + row["clicks"], [*names, row["variant_id"]]
    built = []
    for order in (rows, random.sample(rows, len(rows))):
        folder = tmp_path_factory.mktemp("conserved")
        pq.write_table(pa.Table.from_pylist(order, schema=SCHEMA), folder / "raw.parquet")
        with Warehouse(folder / "w.duckdb") as warehouse:
            build_variant_performance(warehouse, folder / "raw.parquet", PairSettings(), seed=3)
            built.append([warehouse.query(f"FROM {table}").to_pylist() for table in ("ads", "variants")])
            merged = warehouse.query("FROM variant_performance").to_pylist()
    assert built[0] == built[1]
    assert {(v["ad_id"], v["text"]): (v["impressions"], v["clicks"], v["variant_id"]) for v in merged} == {
        key: (n, k, min(names)) for key, (n, k, names) in expected.items()
    }


def test_ads_with_a_text_alike_but_for_case_and_punctuation_share_a_split(tmp_path):
    table = raw_table(ads=60)
    alike = [
        raw_row(f"ad{i}", "v2", f"{'SALE' if i % 2 else 'Sale'} now, at {i // 2}!"[: 20 - i % 2], 500, 5)
        for i in range(60)
    ]
    performance, *_ = build(tmp_path, pa.concat_tables([table, pa.Table.from_pylist(alike, schema=SCHEMA)]))
    split = {row["ad_id"]: row["split"] for row in pq.read_table(tmp_path / "w" / "ads.parquet").to_pylist()}
    assert performance["clusters"] == 30
    assert performance["largest_cluster_ads"] == 2
    assert all(split[f"ad{i}"] == split[f"ad{i + 1}"] for i in range(0, 60, 2))
    assert sum(performance[f"ads_{name}"] for name in ("train", "validation", "test", "evaluation")) == 60


def test_filters_that_leave_no_pair_are_named(tmp_path):
    with pytest.raises(UserError, match=r"min_effect=9.*Loosen"):
        build(tmp_path, raw_table(ads=5), min_effect=9)


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        ([raw_row("a", "v", "one", 1000, 5), raw_row("b", "v", "two", 1000, 5)], "same ad_id"),
        (
            [raw_row("a", "v", "one", 1000, 5), raw_row("a", "w", "two", 99, 5)],
            r"best has two with 99\).*min_impressions",
        ),
        ([raw_row("a", "v", "one", 1000, 0), raw_row("a", "w", "two", 1000, 0)], "0 clicks"),
    ],
)
def test_no_pair_is_a_user_error_with_advice(tmp_path, rows, advice):
    with pytest.raises(UserError, match=advice):
        build(tmp_path, pa.Table.from_pylist(rows, schema=SCHEMA))
