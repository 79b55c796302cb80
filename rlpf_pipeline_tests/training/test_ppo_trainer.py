import itertools
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import trained_parameters
from rlpf_pipeline.models.base import require_plain_logits
from rlpf_pipeline.settings import LoraSettings
from rlpf_pipeline.training.ppo_trainer import PPOTrainer
from rlpf_pipeline_tests.training.tiny_ppo import PROMPTS, QUIET, SHARP, Likes, groups_of, scores_of, step, tiny_trainer


def test_the_policy_starts_at_its_reference_and_its_first_ratio_is_one(cache: Path) -> None:
    ppo = tiny_trainer(cache, minibatches=2)
    parts = ppo.learner.estimate(groups_of(ppo), scores_of(ppo), 0.1)
    for part in parts:
        assert ((part.log_probs - part.reference) * part.mask).sum(1).abs().max() < 1e-6
        told = ppo.learner.actor(part.packed, part.below)
        assert (torch.exp(told.log_probs - part.log_probs) - 1).abs().max() < 1e-5


def test_a_loss_that_is_not_finite_ends_the_training(cache: Path) -> None:
    """A value head so large that its squared error is infinite."""
    ppo = tiny_trainer(cache, epochs=4, value_learning_rate=1e38)
    with pytest.raises(UserError, match=r"The loss of step 1 is not finite\. Lower policy\.learning_rate"):
        step(ppo)


def test_a_coefficient_beyond_single_precision_is_named_as_a_cause(cache: Path) -> None:
    """No learning rate helps there."""
    ppo = tiny_trainer(cache, kl_coefficient=1e300)
    with pytest.raises(UserError, match=r"not finite\. .* whichever of policy\.kl_coefficient and the penalties"):
        step(ppo)


def test_a_last_step_that_is_too_large_is_seen(cache: Path) -> None:
    """Nobody judges, and no loss is left that could tell."""
    with pytest.raises(UserError, match=r"Weights after the last step are not finite\. Lower policy\.learning_rate"):
        tiny_trainer(cache, steps=1, learning_rate=1e39).train(QUIET)


def test_the_first_ratio_is_one_for_a_policy_that_has_moved(cache: Path) -> None:
    ppo = tiny_trainer(cache, **SHARP)
    step(ppo)
    (part,) = ppo.learner.estimate(groups_of(ppo), scores_of(ppo), 0.1)
    assert (part.log_probs - part.reference).abs().max() > 1e-3
    told = ppo.learner.actor(part.packed, part.below)
    assert (torch.exp(told.log_probs - part.log_probs) - 1).abs().max() < 1e-5


def test_a_moved_policys_log_probs_are_those_of_the_distribution_it_is_sampled_from(cache: Path) -> None:
    ppo = tiny_trainer(cache, **SHARP)
    step(ppo)
    groups = groups_of(ppo)  # of the moved policy
    (part,) = ppo.learner.estimate(groups, scores_of(ppo), 0.1)
    expected = []
    for group in groups:
        for text in group.texts:
            ids = torch.tensor([[*group.prefix, *text]]).to(ppo.sampler.model.device)
            logits = ppo.sampler.model(ids).logits[0, len(group.prefix) - 1 : -1]
            log_probs = torch.log_softmax(logits / SHARP["temperature"], dim=-1)
            expected.append(log_probs[torch.arange(len(text)), torch.tensor(text)])
    padded = torch.nn.utils.rnn.pad_sequence(expected, batch_first=True)
    torch.testing.assert_close(part.log_probs * part.mask, padded, rtol=0, atol=1e-3)


def tiny_of(kind: str, **changes: object) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **heads, **changes)).eval()


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        (("llama", {}), True),
        (("qwen2", {}), True),
        (("gemma2", {"final_logit_softcapping": 0.5}), False),
        (("granite", {"logits_scaling": 8.0}), False),
        (("gpt2", {"n_embd": 32, "n_head": 2, "n_layer": 1}), False),
    ],
)
def test_a_base_that_does_more_to_its_logits_is_refused(model: tuple[str, dict[str, object]], plain: bool) -> None:
    kind, changes = model
    with nullcontext() if plain else pytest.raises(UserError, match="does more to its logits"):
        require_plain_logits(tiny_of(kind, **changes))


def test_the_loss_is_made_of_its_terms_as_the_settings_weigh_them(cache: Path) -> None:
    weights = {"value_coefficient": 0.3, "kl_loss_coefficient": 0.5, "entropy_coefficient": 0.2}
    ppo = tiny_trainer(cache, **SHARP, clip_ratio=0.05, clip_value=0.01, **weights)
    (part,) = ppo.learner.estimate(groups_of(ppo), scores_of(ppo), 0.1)
    for _ in range(3):
        ppo.learner.update([part._replace(told=None)])
    told = ppo.learner.actor(part.packed, part.below, with_entropy=True)
    loss, figures = ppo.learner.loss(part._replace(told=told))
    token = part.mask.bool().cpu().numpy()
    new, old, reference, advantages, values, before, returns, entropy = (
        tensor.detach().cpu().numpy()[token].astype(np.float64)
        for tensor in (
            told.log_probs, part.log_probs, part.reference, part.advantages, told.values, part.values, part.returns,
            told.entropy,
        )
    )  # fmt: skip
    ratio = np.exp(new - old)
    policy = -np.minimum(ratio * advantages, np.clip(ratio, 0.95, 1.05) * advantages).mean()
    held = before + np.clip(values - before, -0.01, 0.01)
    value = 0.5 * np.maximum((values - returns) ** 2, (held - returns) ** 2).mean()
    kl = (np.exp(reference - new) - 1 - (reference - new)).mean()
    assert figures["clipped"] > 0.1
    assert min(kl, value, entropy.mean()) > 1e-3
    assert loss.item() == pytest.approx(policy + 0.3 * value + 0.5 * kl - 0.2 * entropy.mean(), rel=1e-4)


def test_every_epoch_and_minibatch_is_one_optimiser_step_however_memory_is_bounded(cache: Path) -> None:
    ppo = tiny_trainer(cache, epochs=3, minibatches=2, tokens_per_forward=20)
    parts = ppo.learner.estimate(groups_of(ppo), scores_of(ppo), 0.1)
    assert len(parts) == 4
    ppo.learn(ppo.rollout, QUIET)
    assert {int(state["step"]) for state in ppo.learner.masters.optimizer.state.values()} == {6}


def test_parts_of_a_minibatch_sum_to_its_gradient(cache: Path) -> None:
    gradients = []
    for tokens in (4096, 20):
        ppo = tiny_trainer(cache, tokens_per_forward=tokens, entropy_coefficient=0.1, kl_loss_coefficient=0.1)
        ppo.learner.masters.step = lambda *_: None  # type: ignore[method-assign]
        ppo.learner.update(ppo.learner.estimate(groups_of(ppo), scores_of(ppo), 0.1))
        gradients.append(ppo.learner.masters.flat[0].grad)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [({}, 2), ({"epochs": 3}, 4), ({"epochs": 2, "minibatches": 2}, 7), ({"tokens_per_forward": 20}, 12)],
)
def test_the_first_step_goes_on_from_the_pass_of_the_estimates(
    cache: Path, settings: dict[str, int], passes: int
) -> None:
    """Two passes over each part for the estimates, then one for each step; none for the first step, if of one part."""
    ppo = tiny_trainer(cache, **settings)
    groups, scores, seen = groups_of(ppo), scores_of(ppo), []
    ppo.learner.actor.model.model.register_forward_hook(lambda *_: seen.append(1))
    ppo.learner.learn(groups, scores, 0.1)
    assert len(seen) == passes


def test_frozen_layers_run_once_and_change_nothing(cache: Path) -> None:
    top = LoraSettings(top_layers=2)
    cut, whole = (tiny_trainer(cache, lora=top) for _ in range(2))
    assert cut.learner.actor.cut is not None
    whole.learner.actor.cut = None
    for ppo in (cut, whole):
        step(ppo)
    torch.testing.assert_close(cut.learner.adapter, whole.learner.adapter, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lora", [LoraSettings(), LoraSettings(top_layers=2)])
def test_a_critic_with_an_adapter_of_its_own_leaves_the_policy_s_alone(cache: Path, lora: LoraSettings) -> None:
    """The value loss moves the critic's weights and not the policy's, and the other way round."""
    ppo = tiny_trainer(cache, lora=lora, critic_states="own", value_coefficient=1.0)
    learner, held = ppo.learner, tiny_trainer(cache, lora=lora).learner
    (part,) = learner.estimate(groups_of(ppo), scores_of(ppo), 0.1)
    torch.nn.init.ones_(learner.actor.value_head.weight)
    told = learner.actor(part.packed, part.below)
    adapters = (learner.actor.adapter, trained_parameters(learner.actor.critic))
    for word, (moved, still) in ((told.log_probs, adapters), (told.values, adapters[::-1])):
        gradients = torch.autograd.grad(word.sum(), moved + still, retain_graph=True, allow_unused=True)
        assert any(own.abs().max() > 0 for own in gradients[: len(moved)])
        assert gradients[len(moved) :] == (None,) * len(still)
    step(ppo)
    assert len(learner.masters.flat) == len(held.masters.flat) + 1
    base = [p.data_ptr() for p in ppo.learner.actor.critic.parameters() if not p.requires_grad]
    assert set(base) <= {p.data_ptr() for p in ppo.learner.actor.policy.parameters()}


def test_a_critic_with_an_adapter_of_its_own_explains_more_of_the_same_rollout(cache: Path) -> None:
    explained = []
    for states in ("policy", "own"):
        ppo = tiny_trainer(cache, critic_states=states, value_coefficient=1.0, **SHARP | {"epochs": 1})
        groups, scores = groups_of(ppo), scores_of(ppo)
        explained.append([ppo.learner.learn(groups, scores, 0.0)["explained"] for _ in range(15)])
    assert [own[0] for own in explained] == pytest.approx([0, 0], abs=1e-6)
    assert explained[1][-1] > max(0.05, 3 * explained[0][-1])


def test_gradients_are_clipped_to_the_norm_of_the_settings(cache: Path) -> None:
    ppo = tiny_trainer(cache, max_grad_norm=1e-3)
    seen = []
    step_of_adam = ppo.learner.masters.optimizer.step
    ppo.learner.masters.optimizer.step = lambda: (  # type: ignore[method-assign]
        seen.append(torch.cat([flat.grad for flat in ppo.learner.masters.flat]).norm().item()),
        step_of_adam(),
    )
    assert step(ppo)["gradient_norm"] > 1e-2
    assert seen == [pytest.approx(1e-3, rel=1e-3)]


BANDIT = {"max_new_tokens": 1, "temperature": 0.1, "learning_rate": 1e-3, "epochs": 4, "samples_per_prompt": 32}


def first_token(ppo: PPOTrainer) -> torch.Tensor:
    """The policy's exact distribution of the token behind each prompt: (prompts, vocabulary)."""
    ppo.sampler.merged.refresh()
    with torch.no_grad():
        ids = [torch.tensor([prompt.ids]).to(ppo.sampler.model.device) for prompt in PROMPTS]
        logits = [ppo.sampler.model(own).logits[0, -1] for own in ids]
    return torch.softmax(torch.stack(logits) / ppo.settings.temperature, -1)


def bandit(cache: Path, steps: int, kl_coefficient: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A reward of 1 for the token " now", of nothing for others: its probability and the exact KL, after PPO."""
    ppo = tiny_trainer(cache, Likes(lambda text: float(text == "now")), kl_coefficient=kl_coefficient, **BANDIT)
    (token,) = ppo.tokenizer(" now")["input_ids"]
    before = first_token(ppo)
    assert before[:, token].mean() < 0.05
    for _ in range(steps):
        step(ppo)
    after = first_token(ppo)
    return after[:, token], (after * (after / before).log()).sum(-1)


def test_one_rewarded_token_is_learned_to_95_percent_of_the_most_there_is(cache: Path) -> None:
    probability, kl = bandit(cache, steps=6, kl_coefficient=0.0)
    assert probability.mean() > 0.95
    assert kl.min() > 2


def test_a_large_kl_coefficient_holds_it_at_the_reference(cache: Path) -> None:
    probability, kl = bandit(cache, steps=15, kl_coefficient=10.0)
    assert probability.mean() < 0.1
    assert kl.mean() < 0.1


def test_the_coefficient_rises_while_the_kl_is_above_its_target_and_falls_below(cache: Path) -> None:
    ppo = tiny_trainer(cache, kl_coefficient=0.5, kl_target=1.0, kl_gain=2.0, **(SHARP | {"learning_rate": 2e-3}))
    rows = [step(ppo) for _ in range(5)]
    assert min(row["kl"] for row in rows) < 1 < max(row["kl"] for row in rows)
    for before, after in itertools.pairwise(rows):
        assert (after["kl_coefficient"] > before["kl_coefficient"]) == (before["kl"] > 1)


@pytest.mark.slow
@pytest.mark.parametrize("target", [1.0, 3.0])
def test_the_kl_is_steered_to_its_target(cache: Path, target: float) -> None:
    """From one coefficient to two targets, each below the KL of about 10 that the reward alone leads to. The KL swings
    about its target for some ten steps at a time: means of twenty differ by a quarter."""
    taste = Likes(lambda text: 0.5 * text.count("e"))
    settings = SHARP | {"learning_rate": 1.5e-3, "epochs": 2}
    ppo = tiny_trainer(cache, taste, kl_target=target, kl_coefficient=0.5, kl_gain=0.3, **settings)
    rows = [step(ppo) for _ in range(460)]
    assert np.mean([row["kl"] for row in rows[-400:]]) == pytest.approx(target, rel=0.1)


def test_every_prompt_has_its_turn_before_any_comes_again(cache: Path) -> None:
    ppo = tiny_trainer(cache, prompts_per_step=3)
    chosen = []
    for ppo.step in range(4):
        chosen += ppo.next_prompts().tolist()
    assert [sorted(chosen[start : start + 4]) for start in (0, 4, 8)] == [[0, 1, 2, 3]] * 3


def test_each_term_of_the_reward_is_reported(cache: Path) -> None:
    penalties = {"missing_eos_penalty": 2.0, "repetition_penalty": 1.0, "length": "linear", "length_penalty": 0.5}
    row = step(tiny_trainer(cache, **penalties))
    assert row["term_gain"] == pytest.approx(row["reward"])
    assert row["term_missing_eos"] == pytest.approx(-2.0 * (1 - row["finished"]))
    assert row["term_length"] == pytest.approx(-0.5 * (row["tokens"] - row["finished"]))
    assert -1 < row["term_repetition"] <= 0


def test_rewards_are_clipped_after_they_are_normalised(cache: Path) -> None:
    ppo = tiny_trainer(cache, normalize_rewards=True, clip_rewards=1.5)
    ppo.moments = ppo.moments.including(np.array([8.0, 12.0]))
    assert ppo.shaped(np.array([10.0, 11.0, 0.0])).tolist() == pytest.approx([0.0, 0.5, -1.5])


def test_texts_do_not_depend_on_how_prompts_are_divided(cache: Path) -> None:
    """Two ranks' shares, one after the other, are what one rank draws for all."""
    ppo = tiny_trainer(cache)
    whole = ppo.write(PROMPTS, 8, [2, 0], [ppo.reward_model])
    shares = [ppo.write(PROMPTS, 8, [2, 0], [ppo.reward_model]) for ppo.accelerate in (Shares(2, 0), Shares(2, 1))]
    assert whole == shares[0] + shares[1]


class Shares(NamedTuple):
    """Stands in for the accelerator of one of several ranks."""

    num_processes: int
    process_index: int


def test_too_few_prompts_for_the_minibatches_are_refused(cache: Path) -> None:
    with pytest.raises(UserError, match=r"4 prompts .* too few for 5 mini-batches"):
        tiny_trainer(cache, minibatches=5).train(QUIET)


def test_who_only_judges_may_have_fewer_prompts_than_ranks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As comparators do, after hours of their own training."""
    monkeypatch.setattr("rlpf_pipeline.training.ppo_trainer.accelerator", lambda: Shares(9, 8))
    ppo = tiny_trainer(cache)
    with pytest.raises(UserError, match=r"4 prompts .* on 9 process"):
        ppo.train(QUIET)
