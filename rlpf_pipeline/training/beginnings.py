"""A critic that starts from the reward model: the reward of a text so far says how the text will end.

    V(state) = trust x (reward of the text so far - mean reward of the prompt's other samples) + value head

A beginning is rewarded like a text (`Term.whole` says what only an end can show), read anew every few tokens. `trust`
is the slope of how texts ended on their beginnings' rewards, over the rollouts before. What is fixed before a token is
drawn is a baseline: it takes noise from the policy's gradient, and at lambda = 1 leaves its mean as it is (Sutton et
al. 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.rewards import Responses, Term, scored, weighted

Beginnings = list[list[list[float]]]
"""Rewards of texts so far, [prompt][sample][number]: after `every` tokens, after twice as many, …, before the last."""


class Trust(NamedTuple):
    """Least squares of outcomes on beginnings, without an intercept: both are 0 on average. By token."""

    cross: float = 0.0
    square: float = 0.0

    @property
    def slope(self) -> float:
        """Between 0 and 1; 0 while there is nothing to go by."""
        return min(max(self.cross / self.square, 0.0), 1.0) if self.square > 0 else 0.0

    def including(self, beginnings: np.ndarray, outcomes: np.ndarray) -> Trust:
        return Trust(self.cross + float((beginnings * outcomes).sum()), self.square + float((beginnings**2).sum()))


def beginnings_of(
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Responses,
    terms: Sequence[Term],
    every: int,
) -> Beginnings:
    """Rewards of the responses' beginnings."""
    cut = [[[ids[:end] for end in range(every, len(ids), every)] for ids in own] for own in responses]
    texts = [[ids for beginnings in own for ids in beginnings] for own in cut]
    values = weighted([term for term in terms if not term.whole], scored(model, tokenizer, prompts, texts))
    following = iter(sum(values.values(), np.zeros(sum(map(len, texts)))).tolist())
    return [[[next(following) for _ in beginnings] for beginnings in own] for own in cut]


def by_token(beginnings: Beginnings, others: np.ndarray, every: int, places: int) -> np.ndarray:
    """What is known before each token, less the prompt's other samples: (prompts, samples, places).

    others: (prompts, samples), their mean reward. 0 before the first beginning; behind a text's end the last one stays.
    """
    known = np.zeros((*others.shape, places))
    for i, of_prompt in enumerate(beginnings):
        for j, of_text in enumerate(of_prompt):
            for number, reward in enumerate(of_text, start=1):
                known[i, j, number * every :] = reward - others[i, j]
    return known
