import pandas as pd
import pytest

from rlpf_pipeline.training.teacher import INSTRUCTIONS, SEED_EXAMPLES, reason_to_refuse

ORIGINAL = "Fresh bread from our bakery every morning at 7."


@pytest.mark.parametrize(
    ("rewrite", "reason"),
    [
        ("Every morning at 7: fresh bread for you.", ""),
        ("", "not finished"),
        (ORIGINAL.upper(), "a copy"),
        ("Fresh bread every morning, 20 percent off.", "numbers the original does not have: 20"),
        ("Bread!", "length of 1 words"),
        ("You really must come over here", "shares no content word"),
    ],
)
def test_a_rewrite_is_refused_for_a_reason(rewrite: str, reason: str) -> None:
    found = reason_to_refuse(ORIGINAL, rewrite)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_the_shipped_examples_cover_every_instruction_and_pass_the_filter_on_claims() -> None:
    examples = pd.read_json(SEED_EXAMPLES, lines=True)
    assert set(examples.instruction) == set(INSTRUCTIONS)
    assert set(examples.author) == {"synthetic"}
    reasons = [reason_to_refuse(o, r) for o, r in zip(examples.original, examples.rewrite, strict=True)]
    assert [r for r in reasons if "numbers" in r or "copy" in r] == []
