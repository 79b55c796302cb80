"""Evaluate imitation v2 and AdLlama on originals of the test split; writes suggestions.parquet.

    accelerate launch -m rlpf_pipeline.evaluation.jobs.policy --config run.json

inputs: preference_snapshot, imitation_v2, adllama, reward_model, evaluation_reward_model. The planted truth is
consulted only here and in the experiment, never by training. relevance: the cosine of a suggestion's sentence embedding
with its original's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from rlpf_pipeline import sentence_embeddings
from rlpf_pipeline.artifacts import Metrics
from rlpf_pipeline.contracts import SUGGESTIONS
from rlpf_pipeline.evaluation.policy import add_rewards, paired_difference, summarise, write_suggestions
from rlpf_pipeline.market.click_model import PlantedClickModel, industry_of
from rlpf_pipeline.models.adapters import load_policy
from rlpf_pipeline.models.reward_folders import load_reward_model
from rlpf_pipeline.training.best_of import load_best_of
from rlpf_pipeline.training.job import accelerator, run_job
from rlpf_pipeline.training.prompts import make_prompt, require_room
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.snapshot import read_needed_ads, shuffled

OPTIONAL = ["planted_ctr", "relevance"]
REWARDS = {"reward": "reward_model", "evaluation_reward": "evaluation_reward_model"}


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings, device = config.settings, accelerator().device
    reference, tokenizer = load_policy(config.inputs["imitation_v2"], settings.cache)
    adllama, _ = load_policy(config.inputs["adllama"], settings.cache)
    reference, adllama = reference.to(device), adllama.to(device)
    best_of = load_best_of(config.inputs["adllama"], tokenizer, settings.policy, settings.cache, device)
    ads = shuffled(read_needed_ads(config.inputs["preference_snapshot"], "test"), settings.seed)[
        : settings.evaluation.originals
    ]
    prompts = [make_prompt(tokenizer, ad) for ad in ads]
    require_room(reference, (prompt.ids for prompt in prompts), settings.policy.max_new_tokens, "policy.max_new_tokens")
    reporter.say(f"{len(prompts)} originals of the test split, {settings.evaluation.samples_per_original} texts each")
    reporter.phase()
    tables: list[pd.DataFrame] = []
    for name, model, chooser in (("imitation_v2", reference, None), ("adllama", adllama, best_of)):
        tables.append(
            write_suggestions(
                name,
                model,
                reference,
                tokenizer,
                prompts,
                settings.evaluation,
                settings.policy,
                settings.seed,
                reporter.part(len(tables) * len(prompts), 2 * len(prompts), "originals"),
                chooser,
            )
        )
    reporter.say(f"scoring {sum(map(len, tables))} texts with both reward models")
    models = {c: load_reward_model(config.inputs[name], settings.cache).to(device) for c, name in REWARDS.items()}
    suggestions = pd.concat([add_rewards(table, prompts, models) for table in tables], ignore_index=True)
    suggestions[OPTIONAL] = np.nan
    texts, originals = suggestions.text.tolist(), suggestions.original.tolist()
    if settings.has_planted_truth:
        industries = [industry_of(context) for context in suggestions.context]
        click_model = PlantedClickModel.of(settings.market)
        suggestions["planted_ctr"] = click_model.ctr(texts, originals, 0.0, settings.market.base_ctr, industries)
    if sentence_embeddings.is_installed():
        suggestions["relevance"] = sentence_embeddings.cosines(texts, originals)
    else:
        reporter.say("relevance is left out: the weights of all-MiniLM-L6-v2 are not installed")
    suggestions[list(SUGGESTIONS.column_names)].to_parquet(folder / "suggestions.parquet", index=False)
    return _metrics(suggestions)


def _metrics(suggestions: pd.DataFrame) -> Metrics:
    metrics: Metrics = {}
    optional = [column for column in OPTIONAL if suggestions[column].notna().all()]
    for name, prefix in (("imitation_v2", "imitation_"), ("adllama", "adllama_")):
        own = suggestions[suggestions.policy == name]
        metrics |= {prefix + key: value for key, value in summarise(own).items()}
        metrics |= {prefix + column: float(own[column].mean()) for column in optional}
    for column in ["reward", "evaluation_reward", "tokens", *optional]:
        metrics[f"{column}_difference"], metrics[f"{column}_difference_standard_error"] = paired_difference(
            suggestions, column
        )
    return metrics


if __name__ == "__main__":
    run_job(work)
