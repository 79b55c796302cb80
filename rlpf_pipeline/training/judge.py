"""When to stop PPO, and which of its policies to keep: the evaluation reward model's word at a KL budget.

The reward model's own score keeps rising after the texts have become worse (Gao et al. 2023); the evaluation reward
model learned from disjoint ads and is never optimised against. What both are blind to, such as copies and texts
about something else, costs the judged policy what it costs in training. Both judge samples for the same held-out
prompts, drawn with the same random numbers each time; reward, evaluation reward and KL along the steps are the run's
curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.rewards import Samples, Term, described, penalties, weighted

Curve = Sequence[Mapping[str, float]]
"""One row a judgement, in the order of steps: step, reward, evaluation_reward, penalties, kl (nats per text), …"""


class Judges(NamedTuple):
    """The evaluation reward model and the held-out prompts it judges on; training sees neither.

    usual_spread: how far its heads disagree on people's own texts; None where spread costs nothing.
    """

    model: RewardModel
    prompts: Sequence[Prompt]
    usual_spread: float | None = None

    def penalties(self, settings: PolicySettings) -> list[Term]:
        """What a text costs as in training, by this model's heads: it learned from fewer ads, so they disagree more."""
        return penalties(settings.model_copy(update={"usual_spread": self.usual_spread}))


def judgement(
    step: int, samples: Samples, evaluation_gains: np.ndarray, terms: Sequence[Term], k: int, kl: float
) -> dict[str, float]:
    """A row of the curve, of a policy's `k` samples for each of the judges' prompts; kl: of that policy, nats per text.

    evaluation_gains: (texts, heads), of the evaluation reward model. terms: `Judges.penalties`, of whose sum the row's
    `penalties` is the mean.
    """
    judged_by = replace(samples, gains=evaluation_gains)
    cost = sum(float(values.mean()) for values in weighted(terms, judged_by).values())
    judged = {"evaluation_reward": float(evaluation_gains.mean()), "penalties": cost, "kl": kl}
    return {"step": step, **judged, **described(samples, k)}


def best_judgement(curve: Curve, kl_budget: float) -> int:
    """Number of the row with the highest evaluation reward, penalties taken off, among those within the budget; the
    first of equal ones.

    The first row is of the reference, whose KL is 0, so there is always one.
    """
    allowed = [number for number, row in enumerate(curve) if row["kl"] <= kl_budget]
    return max(allowed, key=lambda number: curve[number]["evaluation_reward"] + curve[number]["penalties"], default=0)


def has_peaked(curve: Curve, kl_budget: float, patience: int) -> bool:
    """Whether the last `patience` judgements brought nothing better within the budget."""
    return len(curve) - 1 - best_judgement(curve, kl_budget) >= patience
