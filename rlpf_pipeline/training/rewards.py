"""What PPO maximises: how much better than the original a suggestion is by the reward model, less penalties.

A Bradley-Terry score means something only against another text of the same ad, so the reward is the score's gain
over the advertiser's original: the log odds that the suggestion gets the higher CTR.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.prompts import Prompt


def gains(model: RewardModel, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Score of each text less the score of its prompt's original: (prompts x samples,), log odds."""
    scores = model.score([(p.context, [p.original, *own]) for p, own in zip(prompts, texts, strict=True)])
    means = [own.mean(axis=1) for own in scores]
    return np.concatenate([own[1:] - own[0] for own in means])


def length_penalty(tokens: np.ndarray, original_tokens: np.ndarray, settings: PolicySettings) -> np.ndarray:
    """Linear outside `shortest` to `longest` times the original's length, nothing inside: (responses,), at most 0.

    Both ends matter: without the lower one, PPO learned to please the reward model with ever shorter texts.
    """
    lacking = np.maximum(0, settings.shortest * original_tokens - tokens)
    excess = np.maximum(0, tokens - settings.longest * original_tokens)
    return -settings.length_penalty * (lacking + excess)


def missing_eos_penalty(finished: np.ndarray, settings: PolicySettings) -> np.ndarray:
    """A constant for a text cut off at the limit: (responses,), at most 0."""
    return np.where(finished, 0.0, -settings.missing_eos_penalty)
