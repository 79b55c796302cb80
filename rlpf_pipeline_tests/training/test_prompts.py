import pytest

from rlpf_pipeline.training.prompts import tidied


@pytest.mark.parametrize(
    ("text", "tidy"), [('"Fresh  bread "', "Fresh bread"), ('"Fresh" or "stale"', '"Fresh" or "stale"'), ('"', '"')]
)
def test_only_quotes_that_enclose_a_text_are_taken(text: str, tidy: str) -> None:
    assert tidied(text) == tidy
