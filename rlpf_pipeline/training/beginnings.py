"""A critic that starts from the reward model: the reward of a text so far says how the text will end.

    V(state) = what the text's last beginning foretells + value head

A beginning is rewarded like a text (`Term.whole` says what only an end can show), read anew every few tokens, less the
mean reward of the prompt's other samples. What it foretells is a regression of how texts ended on that, over the
rollouts before; one for the first beginnings, one for the second, …: the longer a beginning, the more it says, and the
reward of a fragment is not on a text's scale. What is fixed before a token is drawn is a baseline: it takes noise from
the policy's gradient, and at lambda = 1 leaves its mean as it is (Sutton et al. 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.rewards import Responses, Term, scored, weighted

FEWEST = 30
"""Texts that had a beginning of some number before anything is foretold of one."""
Beginnings = list[list[list[float]]]
"""Rewards of texts so far, [prompt][sample][number]: after `every` tokens, after twice as many, …, before the last."""


class Trust(NamedTuple):
    """Least squares of outcomes on beginnings, by number: sums over the texts that had so many, all (numbers,)."""

    texts: list[float]
    known: list[float]
    outcome: list[float]
    square: list[float]
    cross: list[float]

    @classmethod
    def of_none(cls, numbers: int) -> Trust:
        return cls(*([0.0] * numbers for _ in cls._fields))

    def including(self, known: np.ndarray, outcomes: np.ndarray) -> Trust:
        """known: (prompts, samples, numbers), NaN where a text had ended; outcomes: (prompts, samples)."""
        there, x, y = ~np.isnan(known), np.nan_to_num(known), outcomes[..., None]
        seen = (there, x, there * y, x * x, x * y)
        return Trust(*((np.array(own) + new.sum((0, 1))).tolist() for own, new in zip(self, seen, strict=True)))

    def slopes(self) -> np.ndarray:
        """(numbers,), between 0 and 1; 0 while there are fewer than FEWEST texts to go by."""
        texts, known, outcome, square, cross = (np.array(own) for own in self)
        count = np.maximum(texts, 1)
        spread = square - known * known / count
        slope = (cross - known * outcome / count) / np.where(spread > 0, spread, np.inf)
        return np.where(texts < FEWEST, 0.0, slope.clip(0, 1))

    def foretold(self, known: np.ndarray) -> np.ndarray:
        """What is expected of the outcome, (…, numbers), of `known` of that shape; NaN where that is."""
        texts, mean, outcome = (np.array(own) for own in self[:3])
        count = np.maximum(texts, 1)
        expected = outcome / count + self.slopes() * (known - mean / count)
        return np.where(np.isnan(known) | (texts >= FEWEST), expected, 0.0)


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


def beside(beginnings: Beginnings, others: np.ndarray, numbers: int) -> np.ndarray:
    """Rewards of beginnings less others, the mean reward of the prompt's other samples (prompts, samples): (prompts,
    samples, numbers), NaN where a text had ended."""
    known = np.full((*others.shape, numbers), np.nan)
    for i, of_prompt in enumerate(beginnings):
        for j, of_text in enumerate(of_prompt):
            known[i, j, : len(of_text)] = np.array(of_text) - others[i, j]
    return known


def by_token(foretold: np.ndarray, every: int, places: int) -> np.ndarray:
    """What was foretold before each token, (prompts, samples, places): of the last beginning before it; 0 before the
    first one. Behind the last one of a text that stays."""
    last = np.zeros(foretold.shape[:2])
    before = np.zeros((*last.shape, places))
    for number in range(foretold.shape[2]):
        last = np.where(np.isnan(foretold[..., number]), last, foretold[..., number])
        before[..., (number + 1) * every :] = last[..., None]
    return before
