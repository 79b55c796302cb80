"""The teacher: a chat model that rewrites real ads, each under one of the study's instructions.

The study's teacher was a 70B model. Here it is the base chat model itself, or a larger one: by hub name or folder, or
behind an endpoint (`teacher_endpoint.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpf_pipeline.settings import TeacherSettings
from rlpf_pipeline.training.prompts import chat_ids, decode, require_room
from rlpf_pipeline.training.rollout import batches_of_samples, gathered
from rlpf_pipeline.training.sampling import Sampling

SHORTEN = "Rephrase and shorten this ad"
QUESTION = "Turn this ad into a question"
INSTRUCTIONS = (
    SHORTEN,
    "Make this ad clearer",
    "Make this ad actionable",
    "Rewrite this ad to evoke empathy",
    QUESTION,
    "Focus this ad on its selling points",
)
SYSTEM = "You rewrite ads in one short sentence. Answer with the new text only."

Chat = list[dict[str, str]]
Teacher = Callable[[Sequence[Chat]], list[str]]
"""Answers chats, in their order; an empty text where one was not finished within the length limit."""


def synthesise(teacher: Teacher, originals: Sequence[str]) -> pd.DataFrame:
    """One rewrite of each original, the instructions taken in turn (contracts.CURATED_EXAMPLES, before the filter)."""
    asked = [INSTRUCTIONS[i % len(INSTRUCTIONS)] for i in range(len(originals))]
    rewrites = teacher([request(*own) for own in zip(asked, originals, strict=True)])
    return pd.DataFrame({"original": originals, "instruction": asked, "rewrite": rewrites, "author": "synthetic"})


def request(instruction: str, original: str) -> Chat:
    """The chat that asks for a rewrite under an instruction."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{instruction}: {original}"}]


def local_teacher(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: TeacherSettings,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> Teacher:
    """A model in this process; `on_progress` hears how many chats are answered, of how many."""

    def answer(chats: Sequence[Chat]) -> list[str]:
        requests = [chat_ids(tokenizer, chat) for chat in chats]
        require_room(model, requests, settings.max_new_tokens, "teacher.max_new_tokens")
        batches = batches_of_samples(
            model,
            requests,
            1,
            Sampling.of(tokenizer, settings),
            torch.Generator().manual_seed(seed),
            settings.batch_size,
        )
        drawn = gathered(batches, lambda done: on_progress(done, len(chats)))
        return [decode(tokenizer, ids) if ids[-1] == tokenizer.eos_token_id else "" for (ids,) in drawn]

    return answer
