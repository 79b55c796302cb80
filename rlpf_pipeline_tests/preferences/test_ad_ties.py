"""Near-duplicate texts against a comparison of every text with every other."""

from itertools import combinations, pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpf_pipeline.warehouse import Warehouse, read_sql
from rlpf_pipeline_tests.preferences.raw_rows import SCHEMA, raw_row


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    with Warehouse(tmp_path_factory.mktemp("ties") / "w.duckdb") as warehouse:
        yield warehouse


def tied(warehouse, texts, similarity=0.9):
    """Pairs of texts, by position, whose ads (one each) share a tie."""
    rows = [raw_row(f"{place:03}", "v", text, 100, 1) for place, text in enumerate(texts)]
    warehouse.replace_table("raw_multitext_ads", pa.Table.from_pylist(rows, schema=SCHEMA))
    by_tie = {}
    for row in warehouse.query(read_sql("staging/stg_ad_ties"), {"similarity": similarity}).to_pylist():
        by_tie.setdefault(row["tie"], set()).add(int(row["ad_id"]))
    return {pair for ads in by_tie.values() for pair in combinations(sorted(ads), 2)}


def word_pairs(text):
    words = text.split()
    return set(pairwise(words)) or {tuple(words)}


def jaccard(one, other):
    return len(one & other) / len(one | other)


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


def test_a_lower_similarity_ties_more(scratch):
    assert tied(scratch, [LONG, LONG.replace("five", "fifth")], similarity=0.6) == {(0, 1)}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=24).map(" ".join), min_size=2, max_size=12),
    st.data(),
    st.sampled_from([0.5, 0.8, 0.9]),
)
def test_exactly_the_near_texts_are_tied(scratch, texts, data, similarity):
    edited = data.draw(st.sampled_from(texts)).split()
    del edited[data.draw(st.integers(0, len(edited) - 1))]
    texts = [*texts, " ".join(edited) or "z"]
    sets = [word_pairs(text) for text in texts]
    near = {
        (one, other)
        for one, other in combinations(range(len(texts)), 2)
        if texts[one] == texts[other] or jaccard(sets[one], sets[other]) >= similarity - 1e-9
    }
    # Ties join through a common text, so pairs that share a neighbour may appear besides the near ones themselves.
    found = tied(scratch, texts, similarity)
    assert near <= found

    def neighbours(place):
        return {place, *(b for a, b in near if a == place), *(a for a, b in near if b == place)}

    assert all(neighbours(one) & neighbours(other) for one, other in found)
