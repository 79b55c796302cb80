"""When to stop PPO, and which of its policies to keep: the evaluation reward model's word at a KL budget.

The reward model's own score keeps rising after the texts have become worse (Gao et al. 2023); the evaluation reward
model learned from disjoint ads and is never optimised against. Both judge samples for the same held-out prompts, drawn
with the same random numbers each time; reward, evaluation reward and KL along the steps are the run's curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.rewards import Responses, decoded, described, head_gains, scored

Curve = Sequence[Mapping[str, float]]
"""One row a judgement, in the order of steps: step, reward, evaluation_reward, kl (nats per text), …"""


class Judges(NamedTuple):
    """The evaluation reward model and the held-out prompts it judges on; training sees neither."""

    model: RewardModel
    prompts: Sequence[Prompt]


def judgement(
    judges: Judges,
    reward_model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    responses: Responses,
    step: int,
    kl: float,
) -> dict[str, float]:
    """A row of the curve. responses: of a policy to the judges' prompts; kl: of that policy, nats per text."""
    samples = scored(reward_model, tokenizer, judges.prompts, responses)
    evaluation_reward = float(head_gains(judges.model, judges.prompts, decoded(tokenizer, responses)).mean())
    return {"step": step, "evaluation_reward": evaluation_reward, "kl": kl, **described(samples, len(responses[0]))}


def best_judgement(curve: Curve, kl_budget: float) -> int:
    """Number of the row with the highest evaluation reward among those within the budget; the first of equal ones.

    The first row is of the reference, whose KL is 0, so there is always one.
    """
    allowed = [number for number, row in enumerate(curve) if row["kl"] <= kl_budget]
    return max(allowed, key=lambda number: curve[number]["evaluation_reward"], default=0)


def has_peaked(curve: Curve, kl_budget: float, patience: int) -> bool:
    """Whether the last `patience` judgements brought nothing better within the budget."""
    return len(curve) - 1 - best_judgement(curve, kl_budget) >= patience
