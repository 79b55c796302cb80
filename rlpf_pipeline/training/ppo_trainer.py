"""PPO from an imitation model to AdLlama: sample, score, estimate advantages, update; one frozen base, one adapter.

The reference is the same model with the adapter off: imitation v2, merged into the base before the adapter went on.
The critic is a linear value head on the policy's hidden states, on top of a baseline per prompt: the mean score of the
prompt's other samples; on request it starts from the reward of the text so far (`beginnings.py`). Samples of a prompt
are packed behind it, so that scoring and updating encode the prompt once (`models/packing.py`); only response tokens
get logits. The evaluation reward model stops the run and picks the policy (`judge.py`). A run that was killed goes on
from its last checkpoint and ends with the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import is_finite
from rlpf_pipeline.models.packing import Group
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.beginnings import Beginnings, Trust, beginnings_of, beside, by_token
from rlpf_pipeline.training.checkpoints import Checkpoint, Checkpoints
from rlpf_pipeline.training.job import accelerator
from rlpf_pipeline.training.judge import Judges, best_judgement, has_peaked, judgement
from rlpf_pipeline.training.losses import adapted_kl_coefficient, leave_one_out
from rlpf_pipeline.training.normaliser import RunningMoments
from rlpf_pipeline.training.ppo_update import PPOUpdate
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.rewards import Samples, decoded, described, head_gains, reward_terms, samples_of, weighted
from rlpf_pipeline.training.rollout import MergedSampler, Sampler
from rlpf_pipeline.training.sampling import Sampling
from rlpf_pipeline.training.sharding import ShardedSampler
from rlpf_pipeline.training.vllm_sampler import VllmSampler


class Written(NamedTuple):
    """Texts for one prompt: token ids [sample], and the gains by each model that was asked, [model][sample][head]."""

    responses: list[list[int]]
    gains: list[list[list[float]]]


class Rollout(NamedTuple):
    """Samples of one step as plain data, the same on every rank: prompts by number, token ids and the reward model's
    gains, both [prompt][sample]. beginnings: what a critic that starts from the reward model goes by; else empty."""

    prompts: list[int]
    responses: list[list[list[int]]]
    gains: list[list[list[float]]]
    beginnings: Beginnings


class PPOTrainer:
    """One run: models, prompts, optimiser, and how far it is. All that changes goes into `checkpoint()`."""

    def __init__(
        self,
        policy: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        reward_model: RewardModel,
        prompts: Sequence[Prompt],
        settings: PolicySettings,
        seed: int,
        judges: Judges | None = None,
        sampler: Sampler | VllmSampler | None = None,
    ) -> None:
        """policy: whole, or sharded (`sharding.py`). sampler: None for our own decoding. Raises UserError where a
        judgement by a sharded policy would have fewer prompts than there are ranks."""
        self.settings, self.seed, self.tokenizer = settings, seed, tokenizer
        self.reward_model, self.prompts, self.judges = reward_model, prompts, judges
        self.accelerate = accelerator()
        self.prompts_per_step = min(settings.prompts_per_step, len(prompts))
        self.learner = PPOUpdate(policy, settings, tokenizer.pad_token_id, self.accelerate)
        if self.learner.sharded and judges and len(judges.prompts) < self.accelerate.num_processes:
            raise UserError(
                f"{len(judges.prompts)} originals to judge on are too few for {self.accelerate.num_processes} ranks "
                "that share a base: each needs one. Raise policy.judge_prompts, or give more validation ads."
            )
        self.terms = reward_terms(settings)
        drawing = ShardedSampler if self.learner.sharded else MergedSampler
        self.sampler = sampler or drawing(policy, Sampling.of(tokenizer, settings))
        self.step, self.stopped = 0, False
        self.kl_coefficient, self.moments = settings.kl_coefficient, RunningMoments()
        self.numbers = (settings.max_new_tokens - 1) // settings.beginning_tokens
        self.trust = Trust.of_none(self.numbers)
        self.rollout: Rollout | None = None
        self.history: list[dict[str, float]] = []
        self.curve: list[dict[str, float]] = []
        self.best = self.learner.adapter

    def train(self, reporter: Reporter, checkpoints: Checkpoints | None = None) -> None:
        """Run to the end and take the chosen policy; `history` then has a row a step, `curve` one a judgement.

        Raises UserError where a mini-batch would have fewer prompts than there are ranks, and for a loss or weights
        that are not finite.
        """
        self.require_prompts()
        self.resume(checkpoints)
        reporter.phase(self.step)
        while not self.finished:
            self.advance(reporter)
            if checkpoints and self.step % self.settings.checkpoint_every == 0 and self.accelerate.is_main_process:
                checkpoints.save(self.checkpoint())
        self.take_best()
        if not is_finite(self.learner.actor.policy):
            raise UserError("Weights after the last step are not finite. Lower policy.learning_rate.")

    def require_prompts(self) -> None:
        minibatches, ranks = self.settings.minibatches, self.accelerate.num_processes
        if self.prompts_per_step < minibatches * ranks:
            raise UserError(
                f"A PPO step has {self.prompts_per_step} prompts (of {len(self.prompts)} in all): too few for "
                f"{minibatches} mini-batches on {ranks} process(es). Raise policy.prompts_per_step or lower "
                "policy.minibatches."
            )

    @property
    def finished(self) -> bool:
        return self.stopped or (self.step == self.settings.steps and not self.judgement_is_due)

    @property
    def judgement_is_due(self) -> bool:
        """At the start, every `judge_every` steps, and at the end."""
        if self.judges is None or self.rollout is not None or (self.curve and self.curve[-1]["step"] == self.step):
            return False
        return self.step % self.settings.judge_every == 0 or self.step == self.settings.steps

    def advance(self, reporter: Reporter) -> None:
        """The next piece of work: a judgement, a rollout, or an update on the rollout that is there."""
        if self.judgement_is_due:
            self.judge(self.judges, reporter)
        elif self.rollout is None:
            self.collect()
        else:
            self.learn(self.rollout, reporter)

    def judge(self, judges: Judges, reporter: Reporter) -> None:
        """A row of the curve: samples for the held-out prompts, with the same random numbers each time."""
        prompts, k = judges.prompts, self.settings.judge_samples
        written = self.write(prompts, k, [1], [self.reward_model, judges.model])
        responses = [own.responses for own in written]
        gains, evaluation_gains = (flat([own.gains[model] for own in written]) for model in (0, 1))
        kl = self.learner.mean_kl([Group(p.ids, own) for p, own in zip(prompts, responses, strict=True)])
        samples = samples_of(self.tokenizer, prompts, responses, gains)
        row = judgement(self.step, samples, evaluation_gains, judges.penalties(self.settings), k, kl)
        self.curve.append(row)
        if best_judgement(self.curve, self.settings.kl_budget) == len(self.curve) - 1:
            self.best = self.learner.adapter
        self.stopped = has_peaked(self.curve, self.settings.kl_budget, self.settings.patience)
        outcome = "; nothing better for a while: training stops" if self.stopped else ""
        shown = ", ".join(f"{name} {row[name]:.3g}" for name in ("evaluation_reward", "penalties", "reward", "kl"))
        reporter.say(f"judged at step {self.step}: {shown}{outcome}")
        reporter.metrics({f"judged_{name}": value for name, value in row.items() if name != "step"}, self.step)

    def collect(self) -> None:
        """Fresh samples for the next prompts, and the reward model's word on them."""
        numbers = self.next_prompts().tolist()
        prompts, k = [self.prompts[i] for i in numbers], self.settings.samples_per_prompt
        written = self.write(prompts, k, [2, self.step], [self.reward_model])
        responses, gains = [own.responses for own in written], [own.gains[0] for own in written]
        read = self.settings.critic == "reward-model"
        self.rollout = Rollout(numbers, responses, gains, self.read_beginnings(prompts, responses) if read else [])
        if self.settings.normalize_rewards:
            self.moments = self.moments.including(sum(weighted(self.terms, self.rolled_out(self.rollout)).values()))

    def write(
        self, prompts: Sequence[Prompt], k: int, stream: Sequence[int], models: Sequence[RewardModel]
    ) -> list[Written]:
        """k texts for each prompt and the models' gains of them; every rank does its share and gets all.

        Random numbers belong to prompt, sample and place, so that texts do not depend on how many ranks there are.
        """
        tokens = self.settings.max_new_tokens
        uniform = np.random.default_rng([self.seed, *stream]).random((len(prompts), k, tokens), np.float32)
        mine = self.share(len(prompts))
        own = [prompts[i] for i in mine]
        numbers = torch.from_numpy(uniform[mine].reshape(-1, tokens))
        responses = self.sampler.sample([prompt.ids for prompt in own], k, numbers) if own else []
        texts = decoded(self.tokenizer, responses)
        gains = [head_gains(model, own, texts).reshape(len(own), k, -1).tolist() for model in models if own]
        written = [Written(ids, [of_model[i] for of_model in gains]) for i, ids in enumerate(responses)]
        return gather_object(written)  # type: ignore[no-any-return]

    def read_beginnings(self, prompts: Sequence[Prompt], responses: list[list[list[int]]]) -> Beginnings:
        """Every rank reads its share and gets all."""
        mine, every = self.share(len(prompts)), self.settings.beginning_tokens
        own, written = [prompts[i] for i in mine], [responses[i] for i in mine]
        read = beginnings_of(self.reward_model, self.tokenizer, own, written, self.terms, every) if own else []
        return gather_object(read)  # type: ignore[no-any-return]

    def share(self, prompts: int) -> np.ndarray:
        """Which of so many prompts are this rank's."""
        return np.array_split(np.arange(prompts), self.accelerate.num_processes)[self.accelerate.process_index]

    def learn(self, rollout: Rollout, reporter: Reporter) -> None:
        """`epochs` x `minibatches` optimiser steps on the rollout, then the end of the step.

        Raises UserError for a loss that is not finite.
        """
        samples, k = self.rolled_out(rollout), self.settings.samples_per_prompt
        terms = weighted(self.terms, samples)
        outcome, known = self.beside_others(rollout, sum(terms.values()))
        prior = torch.from_numpy(self.prior(rollout, known))
        metrics = described(samples, k) | self.learner.learn(self.groups(rollout), outcome, self.kl_coefficient, prior)
        if not math.isfinite(metrics["policy_loss"] + metrics["value_loss"] + metrics["gradient_norm"]):
            raise UserError(
                f"The loss of step {self.step + 1} is not finite. Lower policy.learning_rate or "
                "policy.value_learning_rate, or whichever of policy.kl_coefficient and the penalties is huge; in "
                "float16 or on damaged base weights nothing helps but another base."
            )
        metrics["trust"] = self.trusted(known)
        self.trust = self.trust.including(known, outcome.numpy())
        metrics |= {f"term_{name}": float(values.mean()) for name, values in terms.items()}
        metrics["kl_coefficient"] = self.kl_coefficient
        if self.settings.kl_target is not None:
            self.kl_coefficient = adapted_kl_coefficient(
                self.kl_coefficient, metrics["kl"], self.settings.kl_target, self.settings.kl_gain
            )
        self.step, self.rollout = self.step + 1, None
        self.history.append({"step": self.step, **metrics})
        shown = {name: metrics.pop(name) for name in ("reward", "kl", "tokens")}
        drawn = (self.step * len(samples.texts), "samples")
        reporter.progress(self.step, self.settings.steps, rate=drawn, **shown)
        reporter.metrics(metrics, self.step)

    def beside_others(self, rollout: Rollout, rewards: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """What each text earned less the prompt's other samples, (prompts, samples), and its beginnings' rewards less
        the same (`beside`)."""
        k = self.settings.samples_per_prompt
        shaped = self.shaped(rewards).reshape(-1, k)
        outcome = leave_one_out(torch.tensor(shaped.ravel()), k).view(-1, k)
        beginnings = [[self.shaped(np.array(own)).tolist() for own in of_prompt] for of_prompt in rollout.beginnings]
        return outcome, beside(beginnings, shaped - outcome.numpy(), self.numbers)

    def prior(self, rollout: Rollout, known: np.ndarray) -> np.ndarray:
        """Where the critic starts from before each token, (prompts, samples, places), 0 behind the text's end."""
        places, every = self.settings.max_new_tokens, self.settings.beginning_tokens
        lengths = np.array([[len(ids) for ids in own] for own in rollout.responses])
        return by_token(self.trust.foretold(known), every, places) * (np.arange(places) < lengths[..., None])

    def trusted(self, known: np.ndarray) -> float:
        """The beginnings' mean slope, or 0 where there are none."""
        there = ~np.isnan(known)
        return float((there * self.trust.slopes()).sum() / max(there.sum(), 1))

    def next_prompts(self) -> np.ndarray:
        """Numbers of this step's prompts: the prompts in a random order, anew each time all have had their turn."""
        every = len(self.prompts)
        places = np.arange(self.step * self.prompts_per_step, (self.step + 1) * self.prompts_per_step)
        orders = {turn: np.random.default_rng([self.seed, 0, turn]).permutation(every) for turn in set(places // every)}
        return np.array([orders[place // every][place % every] for place in places])

    def rolled_out(self, rollout: Rollout) -> Samples:
        prompts = [self.prompts[i] for i in rollout.prompts]
        return samples_of(self.tokenizer, prompts, rollout.responses, flat(rollout.gains))

    def groups(self, rollout: Rollout) -> list[Group]:
        return [Group(self.prompts[i].ids, r) for i, r in zip(rollout.prompts, rollout.responses, strict=True)]

    def shaped(self, rewards: np.ndarray) -> np.ndarray:
        """The rewards as the settings want them: normalised, clipped."""
        if self.settings.normalize_rewards:
            rewards = self.moments.normalised(rewards)
        limit = self.settings.clip_rewards
        return rewards if limit is None else rewards.clip(-limit, limit)

    def take_best(self) -> None:
        """Without judges, the last policy is the one."""
        if self.judges is not None:
            self.learner.take(self.best)

    def chosen(self) -> dict[str, float]:
        """The judgement of the policy that was kept, or the last step's figures where nobody judged."""
        return self.curve[best_judgement(self.curve, self.settings.kl_budget)] if self.curve else self.history[-1]

    def checkpoint(self) -> Checkpoint:
        """Random numbers come from seed and step alone, so they need no place in it."""
        state: dict[str, Any] = {name: getattr(self, name) for name in STATE}
        return Checkpoint(self.learner.masters.state() | {"best": self.best}, state)

    def resume(self, checkpoints: Checkpoints | None) -> None:
        """Take up the run's last checkpoint, if there is one."""
        found = checkpoints.load() if checkpoints else None
        if found is None:
            return
        self.best = found.tensors.pop("best").to(self.best)
        self.learner.masters.restore(found.tensors)
        for name in STATE:
            setattr(self, name, found.state[name])
        self.moments, self.trust = RunningMoments(*self.moments), Trust(*self.trust)
        self.rollout = Rollout(*self.rollout) if self.rollout else None


STATE = ("step", "stopped", "kl_coefficient", "moments", "trust", "rollout", "history", "curve")


def flat(gains: list[list[list[float]]]) -> np.ndarray:
    """Gains [prompt][sample][head] as (texts, heads)."""
    every = np.array(gains)
    return every.reshape(-1, every.shape[-1])
