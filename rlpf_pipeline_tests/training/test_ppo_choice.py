"""Which of its policies a run keeps, by the evaluation reward model's judgement, and when it stops."""

from pathlib import Path

import pytest

from rlpf_pipeline_tests.training.tiny_ppo import QUIET, SHARP, Likes, likes_letter, tiny_trainer

# Planted reward models: what they reward is worth nothing, and the evaluation reward model knows it.
HACKS = {
    "length": (Likes(lambda text: len(text.split())), Likes(lambda text: -abs(len(text.split()) - 2))),
    "repetition": (likes_letter(">"), Likes(lambda text: len(set(text)) / max(1, len(text)) + min(text.count(">"), 1))),
}


@pytest.mark.parametrize("hack", HACKS)
def test_the_evaluation_reward_model_stops_a_run_that_hacks_its_reward(cache: Path, hack: str) -> None:
    reward, judge = HACKS[hack]
    ppo = tiny_trainer(
        cache,
        reward,
        judge,
        steps=40,
        judge_every=1,
        judge_samples=8,
        patience=3,
        kl_coefficient=0.0,
        kl_budget=50.0,
        **(SHARP | {"learning_rate": 2e-3}),
    )
    ppo.train(QUIET)
    last, chosen = ppo.curve[-1], ppo.chosen()
    assert ppo.stopped
    assert ppo.step < 40
    assert last["reward"] > chosen["reward"]
    assert last["evaluation_reward"] < chosen["evaluation_reward"]
    assert chosen["step"] == ppo.step - 3


def test_the_policy_that_is_kept_is_the_one_that_was_judged_best(cache: Path) -> None:
    ppo = tiny_trainer(cache, *HACKS["length"], steps=6, judge_every=1, patience=2, kl_coefficient=0.0, **SHARP)
    ppo.train(QUIET)
    chosen = ppo.chosen()
    ppo.curve, ppo.rollout = [], None
    ppo.judge(ppo.judges, QUIET)
    assert {k: v for k, v in ppo.curve[0].items() if k != "step"} == {k: v for k, v in chosen.items() if k != "step"}


def test_a_policy_beyond_the_kl_budget_is_not_kept(cache: Path) -> None:
    ppo = tiny_trainer(
        cache, likes_letter("e"), likes_letter("e"), steps=6, judge_every=1, kl_coefficient=0.0, kl_budget=0.5, **SHARP
    )
    ppo.train(QUIET)
    assert ppo.curve[-1]["kl"] > 0.5
    assert ppo.chosen()["kl"] <= 0.5
    assert ppo.curve[-1]["evaluation_reward"] > ppo.chosen()["evaluation_reward"]
