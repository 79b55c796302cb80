"""What people's own texts are like: a policy's may be so at no cost, where the settings leave it open.

Measured on ads that PPO does not write for, if there are any, and kept in the policy's manifest. A reward model that
was refitted has learned from these ads, and its heads agree on them more than on others' (docs/ppo.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.models.tokens import token_ids
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.prompts import make_prompt
from rlpf_pipeline.training.rewards import head_gains
from rlpf_pipeline.training.snapshot import Ad, original_of

ASKED, USUAL = 500, 0.9
LEAST_DEVIATION = 0.05
"""Of lengths: one token in twenty. Texts of equal length must not make every other one infinitely unlikely."""
MEASURED = ("usual_spread", "usual_length")


def with_usual(
    settings: PolicySettings, model: RewardModel, tokenizer: PreTrainedTokenizerBase, ads: Sequence[Ad]
) -> PolicySettings:
    """The settings with what their penalties need to know of the ads' texts, where nothing is set."""
    found = {}
    if settings.spread_penalty and settings.usual_spread is None:
        found["usual_spread"] = usual_spread(model, tokenizer, ads)
    if settings.length == "curve" and settings.usual_length is None:
        found["usual_length"] = usual_length(tokenizer, ads)
    return settings.model_copy(update=found)


def as_measured(settings: PolicySettings, metrics: Mapping[str, Any]) -> PolicySettings:
    """The settings with what a policy's manifest says was measured, where nothing is set."""
    return settings.model_copy(update={n: metrics.get(n) for n in MEASURED if getattr(settings, n) is None})


def usual_spread(model: RewardModel, tokenizer: PreTrainedTokenizerBase, ads: Sequence[Ad]) -> float:
    """Spread over heads that nine tenths of the gains of the first ads' own texts do not exceed."""
    ads = ads[:ASKED]
    prompts = [make_prompt(tokenizer, ad) for ad in ads]
    people = [[text for text in ad.texts if text != own.original] for own, ad in zip(prompts, ads, strict=True)]
    return float(np.quantile(head_gains(model, prompts, people).std(axis=1), USUAL))


def usual_length(tokenizer: PreTrainedTokenizerBase, ads: Sequence[Ad]) -> float:
    """How much lengths of the first ads' texts vary: deviation of log(tokens / original's tokens) from 0."""
    ads = ads[:ASKED]
    ids = token_ids(tokenizer, [text for ad in ads for text in ad.texts])
    originals = [original_of(ad) for ad in ads]
    ratios = [
        len(ids[text]) / len(ids[original])
        for original, ad in zip(originals, ads, strict=True)
        for text in ad.texts
        if text != original
    ]
    return max(LEAST_DEVIATION, float(np.sqrt(np.mean(np.square(np.log(ratios))))))
