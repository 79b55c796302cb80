"""Near-duplicate texts against a comparison of every text with every other."""

from itertools import combinations, pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpf_pipeline.preferences.splits import edges_of, first_of_cluster, tie_ads
from rlpf_pipeline.warehouse import Warehouse
from rlpf_pipeline_tests.preferences.raw_rows import SCHEMA, raw_row


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    with Warehouse(tmp_path_factory.mktemp("ties") / "w.duckdb") as warehouse:
        yield warehouse


def tied(warehouse, texts, similarity=0.9):
    """Pairs of texts, by position, whose ads (one each) are in one cluster."""
    rows = [raw_row(f"{place:03}", "v", text, 100, 1) for place, text in enumerate(texts)]
    warehouse.replace_table("raw_multitext_ads", pa.Table.from_pylist(rows, schema=SCHEMA))
    ads = tie_ads(warehouse, similarity)
    first = first_of_cluster(lambda: edges_of(warehouse), ads)
    return {(one, other) for one, other in combinations(range(ads), 2) if first[one] == first[other]}


def word_pairs(text):
    words = text.split()
    return set(pairwise(words)) or {tuple(words)}


def jaccard(one, other):
    return len(one & other) / len(one | other)


def tied_by_comparison(texts, similarity):
    """What `tied` should give, by comparing every text with every other."""
    sets = [word_pairs(text) for text in texts]
    cluster = list(range(len(texts)))
    for one, other in combinations(range(len(texts)), 2):
        if texts[one] == texts[other] or jaccard(sets[one], sets[other]) >= similarity - 1e-9:
            cluster = [cluster[one] if c == cluster[other] else c for c in cluster]
    return {(one, other) for one, other in combinations(range(len(texts)), 2) if cluster[one] == cluster[other]}


LONG = "one two three four five six seven eight nine ten eleven"


def test_a_text_with_a_word_more_is_near_and_one_with_another_word_is_not(scratch):
    texts = [
        LONG,
        f"{LONG} twelve",
        LONG.replace("five", "fifth"),
        "One, two: three four five six seven eight nine ten eleven!",
    ]
    assert tied(scratch, texts) == {(0, 1), (0, 3), (1, 3)}


def test_short_texts_are_near_only_when_equal(scratch):
    assert tied(scratch, ["Sale", "sale!", "Sale now", "On sale now", "!!!", "???"]) == {(0, 1)}


def test_emoji_do_not_count_with_what_belongs_to_them(scratch):
    # U+FE0F asks for colours, U+200D joins two emoji to one, U+20E3 is a key's frame: none is seen alone.
    texts = ["Sale now", "Sale now \u2764\ufe0f", "\U0001f468\u200d\U0001f33e Sale now 1\ufe0f\u20e3", "Sale now 1"]
    assert tied(scratch, [*texts, "\u2764\ufe0f", "\u2600\ufe0f"]) == {(0, 1), (2, 3)}


def test_a_lower_similarity_ties_more(scratch):
    assert tied(scratch, [LONG, LONG.replace("five", "fifth")], similarity=0.6) == {(0, 1)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=24).map(" ".join), min_size=2, max_size=12),
    st.data(),
    st.sampled_from([0.51, 0.6, 0.8, 0.9]),
)
def test_exactly_the_near_texts_and_those_they_lead_to_are_tied(scratch, texts, data, similarity):
    edited = data.draw(st.sampled_from(texts)).split()
    del edited[data.draw(st.integers(0, len(edited) - 1))]
    texts = [*texts, " ".join(edited) or "z"]
    assert tied(scratch, texts, similarity) == tied_by_comparison(texts, similarity)


def test_texts_of_one_template_are_told_apart(scratch):
    """Boilerplate of every text comes last in the order by which candidates are found; the rest decides."""
    template = "get it now and save big with free delivery to your door this week only"
    texts = [f"{template} {noun} {noun}s for every {noun}" for noun in ("cat", "dog", "cow", "pig", "hen")]
    assert tied(scratch, texts, similarity=0.75) == set()
    assert tied(scratch, [*texts, f"{texts[2]} lover"], similarity=0.75) == {(2, 5)}


def test_the_same_ads_are_tied_in_many_ranges_and_rounds(scratch, monkeypatch):
    monkeypatch.setattr("rlpf_pipeline.preferences.ranges.PART_ROWS", 7)
    monkeypatch.setattr("rlpf_pipeline.preferences.ranges.ROUND_ROWS", 9)
    base = [f"{LONG} {name} {thing}" for name in "abcdef" for thing in ("x", "y", "x y z")]
    texts = [*base, *(f"{text} now" for text in base), *base[:4]]
    expected = tied_by_comparison(texts, 0.9)
    assert {(0, 18), (0, 36), (18, 36)} <= expected
    assert (0, 3) not in expected
    assert tied(scratch, texts) == expected
    assert [path.name for path in (scratch.path.parent / "marts").iterdir()] == ["stg_tied_ads.parquet"]
