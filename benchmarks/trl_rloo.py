"""trl's RLOO, what it offers today in place of PPO, on the case of `bench_ppo.py`: no critic, one advantage a text."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset
from trl import RLOOConfig, RLOOTrainer

from benchmarks.ppo_case import Case, Clock, Timed
from benchmarks.trl_models import left_padding_tokenizer, policy_lora, random_scorer
from rlpf_pipeline.models.base import compute_dtype, load_causal_lm
from rlpf_pipeline.training.prompts import messages


def time_trl_rloo(case: Case, cache: Path) -> Timed:
    tokenizer, clock = left_padding_tokenizer(case, cache), Clock()
    base = load_causal_lm(case.base, cache)
    at_once = case.texts // case.minibatches if case.minibatches > 1 else min(case.micro, case.texts)
    with TemporaryDirectory() as scratch:
        arguments = RLOOConfig(
            output_dir=scratch,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=case.texts // case.minibatches // at_once,
            steps_per_generation=case.texts // at_once,
            num_generations=case.samples,
            num_iterations=case.epochs,
            max_steps=case.steps * case.epochs * case.minibatches,
            max_completion_length=case.max_new_tokens,
            temperature=case.temperature,
            beta=case.kl_coefficient,
            learning_rate=case.learning_rate,
            gradient_checkpointing=False,
            bf16=compute_dtype(case.base) == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=case.seed,
        )
        trainer = RLOOTrainer(
            model=base,
            reward_funcs=random_scorer(case, cache, tokenizer),
            reward_processing_classes=tokenizer,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": messages(text)} for text in case.originals()]),
            processing_class=tokenizer,
            peft_config=policy_lora(base, case),
        )
        clock.watch_generate(trainer.model, tokenizer.eos_token_id)
        trainer.train()
        return clock.timed(case.texts)
