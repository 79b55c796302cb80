from pathlib import Path

import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.models.tiny import CHAT_TEMPLATE
from rlpf_pipeline.training.prompts import prompt_ids, require_chat_template, require_room, tidied
from rlpf_pipeline_tests.conftest import THINKS_ALOUD, TINY


@pytest.mark.parametrize(
    ("text", "tidy"), [('"Fresh  bread "', "Fresh bread"), ('"Fresh" or "stale"', '"Fresh" or "stale"'), ('"', '"')]
)
def test_only_quotes_that_enclose_a_text_are_taken(text: str, tidy: str) -> None:
    assert tidied(text) == tidy


def test_a_model_that_thinks_aloud_is_asked_for_the_text_alone(cache: Path) -> None:
    tokenizer = load_tokenizer(TINY, cache)
    tokenizer.chat_template = THINKS_ALOUD
    require_chat_template(tokenizer, "qwen3")
    assert tokenizer.decode(prompt_ids(tokenizer, "Fresh bread.")).endswith(
        "this ad: Fresh bread.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_the_prompt_does_not_change_from_day_to_day(cache: Path) -> None:
    tokenizer = load_tokenizer(TINY, cache)
    today = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    tokenizer.chat_template = today + "{{ 'Today Date: ' + date_string + '\n' }}" + CHAT_TEMPLATE
    assert tokenizer.decode(prompt_ids(tokenizer, "Fresh bread.")).startswith("Today Date: 26 Jul 2024\n<|im_start|>")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "chat_template is not set"),
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        (CHAT_TEMPLATE.replace("<|im_end|>", "<end_of_turn>"), r"ends an answer with '<end_of_turn>\\n', without"),
        (THINKS_ALOUD.replace("enable_thinking", "thinking"), "does not put an answer right behind the request"),
    ],
)
def test_a_chat_template_that_cannot_be_followed_is_refused(cache: Path, template: str | None, reason: str) -> None:
    tokenizer = load_tokenizer(TINY, cache)
    require_chat_template(tokenizer, "tiny")
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=reason):
        require_chat_template(tokenizer, "tiny")


def test_a_request_that_leaves_no_room_for_an_answer_is_told(cache: Path) -> None:
    model = load_causal_lm(TINY, cache)
    require_room(model, [[1] * 500, [1]], 12, "policy.max_new_tokens")  # 512 in all
    with pytest.raises(UserError, match=r"reads 512 tokens\. .* has 500, and policy\.max_new_tokens adds 13\. Lower"):
        require_room(model, [[1] * 500, [1]], 13, "policy.max_new_tokens")
