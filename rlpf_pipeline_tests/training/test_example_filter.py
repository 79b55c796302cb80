import pandas as pd
import pytest

from rlpf_pipeline.training.curation import SEED_EXAMPLES
from rlpf_pipeline.training.example_filter import new_names, reason_to_refuse
from rlpf_pipeline.training.teacher import INSTRUCTIONS

ORIGINAL = "Fresh bread from our bakery in Dayton every morning at 7."


@pytest.mark.parametrize(
    ("rewrite", "reason"),
    [
        ("Every morning at 7: fresh bread for you.", ""),
        ("", "empty, or not finished"),
        (ORIGINAL.upper(), "a copy"),
        ("Fresh bread every morning, 20 percent off.", "numbers the original does not have: 20"),
        ("Bread!", "length of 1 words"),
        ("You really must come over here", "shares no content word"),
        ("Fresh bread every morning in Springfield.", "names the original does not have: Springfield"),
        ("Свежий хлеб fresh bread every morning.", "a script the original does not have: Cyrillic"),
    ],
)
def test_a_rewrite_is_refused_for_a_reason(rewrite: str, reason: str) -> None:
    found = reason_to_refuse(ORIGINAL, rewrite)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("rewrite", "names"),
    [
        ("Hungry? Come to Dayton. Bread is fresh!", set()),  # the first words of sentences
        ("Our promise: Bread at dawn - Every day", set()),  # behind a colon, behind a dash
        ("Fresh bread is what DAYTON wants, and FREE coffee, as I said and I'm sure.", set()),  # emphasis, and "I"
        ("Get Dayton's bread from a Dayton-born baker.", set()),  # parts of a word count on their own
        ("Bread like Grandma's, better than at McDonald's.", {"Grandma", "McDonald"}),
        ('He says: "Bread" and then (Coffee) at O’Hara in Saint-Denis', {"Coffee", "Hara", "Saint", "Denis"}),
    ],
)
def test_names_are_capitalised_words_inside_sentences_that_the_original_lacks(rewrite: str, names: set[str]) -> None:
    assert new_names(ORIGINAL, rewrite) == names


def test_an_original_in_headline_style_says_nothing_about_names() -> None:
    assert new_names("Fresh Bread From Our Bakery", "Get Warm Rolls From Our Bakery") == set()
    assert new_names("Fresh bread from our bakery", "Get Warm Rolls from our bakery") == {"Warm", "Rolls"}


@pytest.mark.parametrize(
    ("original", "rewrite", "refused"),
    [
        ("東京の新しいパン", "東京のパン屋さん ぱん", False),  # kana and Chinese characters belong together
        ("Bread at the cafe", "Bread at the Café für alle", False),
        ("Свежий хлеб", "Fresh хлеб", True),
    ],
)
def test_a_script_stays_what_it_is(original: str, rewrite: str, refused: bool) -> None:
    assert ("a script" in reason_to_refuse(original, rewrite)) is refused


def test_the_shipped_examples_cover_every_instruction_and_pass_the_filter_on_claims() -> None:
    examples = pd.read_json(SEED_EXAMPLES, lines=True)
    assert set(examples.instruction) == set(INSTRUCTIONS)
    assert set(examples.author) == {"synthetic"}
    reasons = [reason_to_refuse(o, r) for o, r in zip(examples.original, examples.rewrite, strict=True)]
    assert [r for r in reasons if not r.startswith(("length", "shares"))] == [""] * len(reasons)
