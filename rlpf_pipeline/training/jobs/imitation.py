"""Train an imitation model by supervised fine-tuning.

    accelerate launch -m rlpf_pipeline.training.jobs.imitation --config run.json

inputs: curated_examples. options: version (v1: synthetic examples only; v2: human-written ones too).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rlpf_pipeline.artifacts import Metrics
from rlpf_pipeline.digests import model_digest
from rlpf_pipeline.models.adapters import ModelCard, attach_lora, save_model
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer, require_plain_logits
from rlpf_pipeline.training.imitation_trainer import train_imitation
from rlpf_pipeline.training.job import run_job
from rlpf_pipeline.training.prompts import require_chat_template
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings = config.settings
    examples = pd.read_parquet(
        config.inputs["curated_examples"] / "examples.parquet", filters=[("held_out", "==", False)]
    )
    if config.options["version"] == "v1":
        examples = examples[examples.author == "synthetic"]
    reporter.say(f"{len(examples)} examples, {(examples.author == 'human').sum()} of them human-written")
    tokenizer = load_tokenizer(settings.base, settings.cache)
    require_chat_template(tokenizer, settings.base.name)
    base = load_causal_lm(settings.base, settings.cache)
    require_plain_logits(base)  # of PPO, which starts from here: better now than hours later
    model = attach_lora(base, settings.imitation.lora)
    pairs = list(zip(examples.original, examples.rewrite, strict=True))
    metrics = train_imitation(model, tokenizer, pairs, settings.imitation, settings.seed, reporter)
    card = ModelCard(
        kind="policy", base=settings.base, base_digest=model_digest(settings.base.name), adapters=[config.recipe.stage]
    )
    save_model(folder, card, model, tokenizer)
    return dict(metrics)


if __name__ == "__main__":
    run_job(work)
