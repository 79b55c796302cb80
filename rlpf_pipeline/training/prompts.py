"""The one prompt that imitation, PPO, evaluation and `rlpf generate` share: what is trained is what is used."""

from __future__ import annotations

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.training.snapshot import Ad, original_of

SYSTEM = "You write short ad texts."
REQUEST = "Write another text for this ad: {original}"


def messages(original: str) -> list[dict[str, str]]:
    """Chat messages that ask for another text for the ad."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": REQUEST.format(original=original)}]


class Prompt(NamedTuple):
    """An ad that wants suggestions: its context, its original text, and the tokens that ask for another one."""

    ad_id: str
    context: str | None
    original: str
    ids: list[int]
    original_tokens: int


def make_prompt(tokenizer: PreTrainedTokenizerBase, ad: Ad) -> Prompt:
    """The prompt for an ad of the snapshot."""
    original = original_of(ad)
    length = len(tokenizer(original, add_special_tokens=False)["input_ids"])
    return Prompt(ad.ad_id, ad.context, original, prompt_ids(tokenizer, original), length)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, original: str) -> list[int]:
    """Token ids of the prompt, up to where the policy starts writing."""
    return chat_ids(tokenizer, messages(original))


def chat_ids(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of generated tokens, special tokens dropped."""
    return tidied(tokenizer.decode(ids, skip_special_tokens=True))


def tidied(text: str) -> str:
    """A written text with white space collapsed and enclosing quotes removed."""
    text = " ".join(text.split())
    encloses = len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]
    return text[1:-1].strip() if encloses else text
