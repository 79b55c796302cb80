"""Shares of wording against numbers counted by hand."""

from __future__ import annotations

from rlpf_pipeline.training.wording import shared_wording, word_pairs


def test_a_first_word_is_a_pair_with_the_beginning_and_case_and_marks_do_not_count() -> None:
    assert word_pairs("You'll bake, you'll BAKE!") == {("", "you"), ("you", "ll"), ("ll", "bake"), ("bake", "you")}
    assert word_pairs(" … ") == set()


def test_the_most_common_pair_among_other_originals_texts_counts() -> None:
    texts = ["You can bake.", "You'll bake at home", "you can run, you can", "A new coach.", "", "Home can bake"]
    originals = ["bread", "bread", "run", "run", "none", "home"]
    # of four others one begins with "you" and one holds "can bake"; one begins with "you"; two of four begin with
    # "you", once each however often; nothing shared; no word; one of five holds "can bake"
    assert shared_wording(texts, originals).tolist() == [1 / 4, 1 / 4, 2 / 4, 0, 0, 1 / 5]


def test_texts_of_one_original_share_nothing_with_others() -> None:
    assert shared_wording(["You can", "You can"], ["bread", "bread"]).tolist() == [0, 0]
    assert shared_wording(["You can", "You can"], ["bread", "run"]).tolist() == [1, 1]
