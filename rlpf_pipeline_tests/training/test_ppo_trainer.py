from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpf_pipeline.models.adapters import attach_lora
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.settings import LoraSettings, PolicySettings
from rlpf_pipeline.training.ppo_trainer import PPOTrainer
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.rewards import length_penalty, missing_eos_penalty
from rlpf_pipeline_tests.conftest import TINY

PROMPTS = [Prompt(f"ad{i}", None, "Bread.", [1, 30 + i, 31 + i], 4) for i in range(4)]


class LikesLetter:
    """Stands in for a reward model: a text's score is how often the letter stands in it."""

    def __init__(self, letter: str) -> None:
        self.letter = letter

    def score(self, ads: Sequence[tuple[str | None, Sequence[str]]]) -> list[np.ndarray]:
        return [np.array([[text.count(self.letter)] for text in texts], np.float32) for _, texts in ads]


def trainer(cache: Path, **settings: object) -> PPOTrainer:
    torch.manual_seed(0)
    policy = attach_lora(load_causal_lm(TINY, cache), LoraSettings())
    defaults = {
        "prompts_per_step": 4,
        "samples_per_prompt": 8,
        "max_new_tokens": 6,
        "missing_eos_penalty": 0.0,
        "length_penalty": 0.0,
    }
    ppo = PolicySettings.model_validate(defaults | settings)
    return PPOTrainer(policy, load_tokenizer(TINY, cache), LikesLetter("e"), ppo, seed=1)  # type: ignore[arg-type]


def test_the_policy_starts_at_its_reference(cache: Path) -> None:
    ppo = trainer(cache)
    (batch,) = ppo.estimate(ppo.roll_out(PROMPTS))
    assert batch.log_ratio.abs().max() < 1e-6
    assert ppo.update(batch)["moved"] == pytest.approx(0.0, abs=1e-6)


def test_every_epoch_and_minibatch_is_one_optimiser_step(cache: Path) -> None:
    ppo = trainer(cache, epochs=3, minibatches=2)
    ppo.step(PROMPTS)
    steps = {int(state["step"]) for state in ppo.optimizer.state.values()}
    assert steps == {6}


# The tiny model's hidden states are short, so its distribution is close to uniform whatever it learns; a low
# temperature lets it express a preference.
SHARP = {"temperature": 0.15, "learning_rate": 5e-3, "epochs": 4, "samples_per_prompt": 16}


def test_ppo_raises_what_it_is_rewarded_for(cache: Path) -> None:
    ppo = trainer(cache, kl_coefficient=0.0, **SHARP)
    rewards = [ppo.step(PROMPTS)["reward"] for _ in range(8)]
    assert rewards[-1] > rewards[0] + 1.0


def test_a_large_kl_weight_holds_it_near_the_reference(cache: Path) -> None:
    free, held = (trainer(cache, kl_coefficient=beta, **SHARP) for beta in (0.0, 10.0))
    free_kl, held_kl = ([ppo.step(PROMPTS)["kl"] for _ in range(6)][-1] for ppo in (free, held))
    assert held_kl < 0.5 * free_kl


def test_length_costs_only_outside_the_band() -> None:
    settings = PolicySettings(length_penalty=0.5, shortest=0.5, longest=1.5)
    # free from 5 to 15 tokens, then half a point each
    costs = length_penalty(np.array([3, 5, 15, 18]), np.full(4, 10), settings)
    assert costs.tolist() == [-1.0, 0.0, 0.0, -1.5]


def test_an_unfinished_text_is_penalised() -> None:
    assert missing_eos_penalty(np.array([True, False]), PolicySettings(missing_eos_penalty=2.0)).tolist() == [0.0, -2.0]
