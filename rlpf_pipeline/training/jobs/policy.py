"""Train AdLlama from imitation v2 against the reward model by PPO, or by what PPO is compared with.

    accelerate launch -m rlpf_pipeline.training.jobs.policy --config run.json

inputs: preference_snapshot, imitation_v2, reward_model, evaluation_reward_model (judges on originals of the validation
split, never optimised against). PPO keeps the policy it judges best, and a run that was killed goes on from its last
checkpoint; a comparator keeps its last policy, and starts afresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpf_pipeline.artifacts import Metrics
from rlpf_pipeline.digests import digest_of
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import ModelCard, attach_lora, load_policy, save_model
from rlpf_pipeline.models.reward_folders import load_reward_model
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.best_of import BestOf, save_best_of
from rlpf_pipeline.training.checkpoints import Checkpoints
from rlpf_pipeline.training.curves import plot_curve, plot_history
from rlpf_pipeline.training.job import accelerator, run_job
from rlpf_pipeline.training.judge import Judges, judgement
from rlpf_pipeline.training.ppo_trainer import PPOTrainer
from rlpf_pipeline.training.prompts import Prompt, make_prompt, require_room
from rlpf_pipeline.training.reporter import WORTH_SAYING, Reporter
from rlpf_pipeline.training.rewards import decoded, head_gains, scored
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.sampling import Sampling
from rlpf_pipeline.training.sharding import placed, shards_base
from rlpf_pipeline.training.snapshot import Ad, read_ads, read_needed_ads, shuffled
from rlpf_pipeline.training.usual import MEASURED, usual_spread, with_usual
from rlpf_pipeline.training.vllm_sampler import VllmSampler, vllm_sampler


class Task(NamedTuple):
    """What every algorithm is given."""

    config: RunConfig
    reference: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    reward_model: RewardModel
    ads: Sequence[Ad]
    prompts: Sequence[Prompt]
    judges: Judges | None

    def ppo(self, policy: PeftModel, sampler: VllmSampler | None = None) -> PPOTrainer:
        """PPO on a policy, which is also how a policy that another algorithm trained is judged."""
        settings, seed, prompts = self.config.settings.policy, self.config.settings.seed, self.prompts
        return PPOTrainer(policy, self.tokenizer, self.reward_model, prompts, settings, seed, self.judges, sampler)

    @contextmanager
    def sampler(self, policy: PeftModel, reporter: Reporter) -> Iterator[VllmSampler | None]:
        """vLLM's, where the settings ask for it; None for our own."""
        settings, rank = self.config.settings.policy, accelerator().process_index
        if settings.sampler == "own":
            yield None
            return
        judged = self.judges.prompts if self.judges else []
        longest = max(len(prompt.ids) for prompt in [*self.prompts, *judged])
        texts = max(settings.prompts_per_step * settings.samples_per_prompt, len(judged) * settings.judge_samples)
        folder = self.config.output.with_name(f".vllm.{self.config.output.name}.{rank}")
        reporter.say("starting vLLM, which takes a minute or more")
        with vllm_sampler(
            policy, self.tokenizer, Sampling.of(self.tokenizer, settings), texts, longest, folder
        ) as sampler:
            yield sampler


class Trained(NamedTuple):
    """policy: None where nothing was trained. curve: its judgements; kept: the one of the policy that is kept."""

    policy: PeftModel | None
    history: list[dict[str, float]]
    curve: list[dict[str, float]]
    kept: dict[str, float]


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    task = read_task(config)
    settings = task.config.settings.policy
    judged_on = len(task.judges.prompts) if task.judges else 0
    reporter.say(f"{settings.algorithm}: {len(task.ads)} prompts, judged on {judged_on} other originals")
    out_of_reach = originals_out_of_reach(task.prompts, settings)
    if out_of_reach > WORTH_SAYING:
        reporter.say(
            f"{out_of_reach:.0%} of the originals are so long that no text within policy.max_new_tokens "
            f"({settings.max_new_tokens}) reaches {settings.shortest:g} of their length: all of theirs are penalised. "
            "Raise policy.max_new_tokens."
        )
    reporter.phase()
    if settings.algorithm == "ppo":
        trained = by_ppo(task, reporter)
    elif settings.algorithm == "best-of-n":
        trained = by_best_of_n(task, reporter)
    else:
        trained = by_trl(task, reporter)
    save(trained, task, folder)
    return {
        "steps_done": len(trained.history),
        **{name: getattr(settings, name) for name in MEASURED},
        "judge_usual_spread": task.judges.usual_spread if task.judges else None,
        **{f"chosen_{k}": v for k, v in trained.kept.items() if k in SHOWN},
    }


def read_task(config: RunConfig) -> Task:
    settings, accelerate = config.settings, accelerator()
    device, sharded = accelerate.device, shards_base(accelerate)
    require_supported(settings.policy, sharded)
    reference, tokenizer = load_policy(config.inputs["imitation_v2"], settings.cache)
    reward_model, evaluation_model = (
        load_reward_model(config.inputs[name], settings.cache).to(device)
        for name in ("reward_model", "evaluation_reward_model")
    )
    snapshot = config.inputs["preference_snapshot"]
    validation, ads = shuffled(read_ads(snapshot, "validation"), settings.seed), read_needed_ads(snapshot, "train")
    prompts = [make_prompt(tokenizer, ad) for ad in ads]
    policy = with_usual(settings.policy, reward_model, tokenizer, validation or ads)
    config = config.model_copy(update={"settings": settings.model_copy(update={"policy": policy})})
    judges = judges_on(validation, evaluation_model, tokenizer, policy)
    asked = [prompt.ids for prompt in [*prompts, *(judges.prompts if judges else ())]]
    require_room(reference, asked, policy.max_new_tokens, "policy.max_new_tokens")
    # A base that is to be divided may not fit the device as a whole.
    reference = reference if sharded else reference.to(device)
    return Task(config, reference, tokenizer, reward_model, ads, prompts, judges)


def require_supported(settings: PolicySettings, sharded: bool) -> None:
    """Raises UserError for what does not go together. FSDP: not with what needs the base's whole weights on a rank."""
    if sharded and (settings.algorithm != "ppo" or settings.critic_states == "own" or settings.sampler == "vllm"):
        raise UserError(
            "With FSDP the ranks share one base, which is for policy.algorithm ppo with policy.critic_states policy "
            "and policy.sampler own. Change these, or choose an accelerate configuration whose ranks hold whole "
            "models (gpu, gpus-8)."
        )
    if settings.sampler == "vllm" and settings.algorithm != "ppo":
        raise UserError(
            f"policy.sampler vllm is for policy.algorithm ppo, not for {settings.algorithm}. Set it to own."
        )


def judges_on(
    ads: Sequence[Ad], model: RewardModel, tokenizer: PreTrainedTokenizerBase, settings: PolicySettings
) -> Judges | None:
    """Judges on the first of the ads, by what the model's heads make of people's texts; None without ads."""
    if not ads:
        return None
    spread = usual_spread(model, tokenizer, ads) if settings.spread_penalty else None
    return Judges(model, [make_prompt(tokenizer, ad) for ad in ads[: settings.judge_prompts]], spread)


def originals_out_of_reach(prompts: Sequence[Prompt], settings: PolicySettings) -> float:
    """Share of the originals whose band of lengths starts above what a policy may write before its end mark; 0 where
    there is no band that costs."""
    if settings.length != "band" or not settings.length_penalty:
        return 0.0
    most = settings.max_new_tokens - 1
    return sum(settings.shortest * own.original_tokens > most for own in prompts) / len(prompts)


def by_ppo(task: Task, reporter: Reporter) -> Trained:
    config = task.config
    policy = placed(attach_lora(task.reference, config.settings.policy.lora), accelerator())
    checkpoints = Checkpoints(
        config.output.with_name(f".{config.output.name}.checkpoint"), digest_of(config.recipe.model_dump())
    )
    with task.sampler(policy, reporter) as sampler:
        trainer = task.ppo(policy, sampler)
        trainer.train(reporter, checkpoints)
    return Trained(policy, trainer.history, trainer.curve, trainer.chosen())


def by_trl(task: Task, reporter: Reporter) -> Trained:
    """RLOO, GRPO or DPO, judged at the start (without the adapter's weights) and at the end."""
    from rlpf_pipeline.training.comparators import train_on_pairs, train_on_samples

    settings, seed = task.config.settings.policy, task.config.settings.seed
    if settings.algorithm == "dpo":
        policy, history = train_on_pairs(task.reference, task.tokenizer, task.ads, settings, seed, reporter)
    else:
        policy, history = train_on_samples(
            settings.algorithm,
            task.reference,
            task.tokenizer,
            task.reward_model,
            task.prompts,
            settings,
            seed,
            reporter,
        )
    if task.judges is None:
        return Trained(policy, history, [], history[-1])
    trainer = task.ppo(policy)
    learned = trainer.learner.adapter
    for trainer.step, adapter in ((0, torch.zeros_like(learned)), (settings.steps, learned)):
        trainer.learner.take(adapter)
        trainer.judge(task.judges, reporter)
    return Trained(policy, history, trainer.curve, trainer.curve[-1])


def by_best_of_n(task: Task, reporter: Reporter) -> Trained:
    """Imitation v2 judged on its own, and on the best of every `samples_per_prompt` texts (as step 1)."""
    if task.judges is None:
        return Trained(None, [], [], {})
    settings, prompts = task.config.settings.policy, task.judges.prompts
    trainer, best_of = task.ppo(attach_lora(task.reference, settings.lora)), best_of_n(task)
    trainer.judge(task.judges, reporter)
    written = trainer.write(prompts, settings.judge_samples * best_of.n, [1], [])
    responses = best_of.pick(prompts, [own.responses for own in written])
    samples = scored(task.reward_model, task.tokenizer, prompts, responses)
    evaluation_gains = head_gains(task.judges.model, prompts, decoded(task.tokenizer, responses))
    terms = task.judges.penalties(settings)
    row = judgement(1, samples, evaluation_gains, terms, settings.judge_samples, best_of.kl)
    return Trained(None, [], [*trainer.curve, row], row)


def best_of_n(task: Task) -> BestOf:
    settings = task.config.settings.policy
    return BestOf(settings.samples_per_prompt, task.reward_model, task.tokenizer, settings)


def save(trained: Trained, task: Task, folder: Path) -> None:
    """Write the model folder, and what is to be seen of the training beside it."""
    config, start = task.config, task.config.inputs["imitation_v2"]
    if trained.policy is None:
        save_best_of(folder, start, config.inputs["reward_model"], best_of_n(task).n, task.tokenizer)
    else:
        card = ModelCard.read(start)
        card = card.model_copy(update={"adapters": [*card.adapters, config.recipe.stage]})
        save_model(folder, card, trained.policy, task.tokenizer, below=start)
    if trained.history:
        pd.DataFrame(trained.history).to_parquet(folder / "history.parquet", index=False)
        plot_history(trained.history, folder / "history.svg")
    if trained.curve:
        pd.DataFrame(trained.curve).to_parquet(folder / "curve.parquet", index=False)
        plot_curve(trained.curve, int(trained.kept["step"]), folder / "curve.svg")


SHOWN = ("step", "reward", "evaluation_reward", "penalties", "kl", "tokens", "finished", "distinct")


if __name__ == "__main__":
    run_job(work, shards=True)
