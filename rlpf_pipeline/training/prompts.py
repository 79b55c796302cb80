"""The one prompt that imitation, PPO, evaluation and `rlpf generate` share: what is trained is what is used."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.training.snapshot import Ad, original_of

SYSTEM = "You write short ad texts."
REQUEST = "Write another text for this ad: {original}"
CHAT_OPTIONS = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Of chat templates: those of models that think aloud (Qwen3) then close the thoughts before the answer, and those that
say what day it is (Llama 3) say the same one always, which is their own where they know no clock."""


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

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, ad_id: str, context: str | None, original: str) -> Prompt:
        length = len(tokenizer(original, add_special_tokens=False)["input_ids"])
        return cls(ad_id, context, original, prompt_ids(tokenizer, original), length)


def make_prompt(tokenizer: PreTrainedTokenizerBase, ad: Ad) -> Prompt:
    """The prompt for an ad of the snapshot."""
    return Prompt.of(tokenizer, ad.ad_id, ad.context, original_of(ad))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, original: str) -> list[int]:
    """Token ids of the prompt, up to where the policy starts writing."""
    return chat_ids(tokenizer, messages(original))


def chat_ids(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]]) -> list[int]:
    return tokenizer(_rendered(tokenizer, chat, True), add_special_tokens=False)["input_ids"]


def require_room(model: PreTrainedModel, requests: Iterable[Sequence[int]], answer: int, setting: str) -> None:
    """Raises UserError where the model has no positions for the longest request and an answer of so many tokens, as
    `setting` has it. Behind its last position a model writes nonsense, or fails."""
    positions, longest = positions_of(model), max(map(len, requests), default=0)
    if longest + answer > positions:
        raise UserError(
            f"The base model reads {positions:.0f} tokens. The longest request, an original within it, has {longest}, "
            f"and {setting} adds {answer}. Lower {setting}, leave out ads whose texts are so long, or choose another "
            "base (base.name)."
        )


def positions_of(model: PreTrainedModel) -> float:
    """The tokens that the model reads at once; infinite where its positions have no end (ALiBi)."""
    return float(getattr(model.config.get_text_config(), "max_position_embeddings", math.inf))


def require_chat_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises UserError unless the chat template of the model `name` takes our messages, and puts an answer right behind
    the request and the end mark behind it: what imitation learns is then what is asked for, and texts end."""
    chat, answer = messages("Fresh bread."), "Bread, fresh every day."
    try:
        request = _rendered(tokenizer, chat, True)
        whole = _rendered(tokenizer, [*chat, {"role": "assistant", "content": answer}], False)
    except (ValueError, TemplateError) as error:
        raise UserError(
            f"The tokenizer of '{name}' cannot write a chat of a system message, a request and an answer: "
            f"{str(error).partition('!')[0]}. Choose a chat model whose template takes them, or set `chat_template` in "
            "the model's folder."
        ) from error
    before, _, behind = whole.rpartition(answer)
    if before.rstrip() != request.rstrip():
        raise UserError(
            f"The chat template of '{name}' does not put an answer right behind the request: {before!r} is not "
            f"{request!r}. Choose another chat model, or change `chat_template` in the model's folder."
        )
    if tokenizer.eos_token not in behind:
        raise UserError(
            f"The chat template of '{name}' ends an answer with {behind!r}, without the tokenizer's end-of-text token "
            f"{tokenizer.eos_token!r}: no text would ever end. Set `eos_token` in the model's tokenizer_config.json to "
            "what its answers end with."
        )


def _rendered(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], asks: bool) -> str:
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=asks, **CHAT_OPTIONS)


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of generated tokens, special tokens dropped."""
    return tidied(tokenizer.decode(ids, skip_special_tokens=True))


def cleaned(text: str) -> str:
    """Unicode NFC, white space collapsed: as ingest leaves the texts of ads."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def tidied(text: str) -> str:
    """A written text with white space collapsed and enclosing quotes removed."""
    text = " ".join(text.split())
    encloses = len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]
    return text[1:-1].strip() if encloses else text
