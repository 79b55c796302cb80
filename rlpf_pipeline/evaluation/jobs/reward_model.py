"""Evaluate the reward models on the test split, beside baselines that learn from the other splits as they do.

    accelerate launch -m rlpf_pipeline.evaluation.jobs.reward_model --config run.json

inputs: preference_snapshot, and the folders of the models under their names in evaluation/reward_model.py:
reward_model, evaluation_reward_model, pointwise_reward_model, those there are. Writes scores.parquet
(contracts.REWARD_SCORES), comparison.md, figures.json and pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from rlpf_pipeline import sentence_embeddings
from rlpf_pipeline.artifacts import Metrics
from rlpf_pipeline.contracts import REWARD_SCORES
from rlpf_pipeline.evaluation.baselines import Chance, LongerWins, minilm_logistic, tfidf_logistic
from rlpf_pipeline.evaluation.reward_model import MODELS, compare
from rlpf_pipeline.evaluation.split import Scorer, Split, read_decided_split, read_split
from rlpf_pipeline.evaluation.write import write_evaluation
from rlpf_pipeline.models.reward_folders import load_reward_model
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.training.job import accelerator, run_job
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    snapshot, seed = config.inputs["preference_snapshot"], config.settings.seed
    test = read_decided_split(snapshot, "test")
    reporter.say(f"{len(test.starts)} ads with {len(test.texts)} texts, {len(test.pairs)} pairs")
    scorers = dict(scorers_of(config))
    if "minilm" not in scorers:
        reporter.say("the weights of all-MiniLM-L6-v2 are not installed: the table lacks that baseline")
    scores, pointwise = {}, []
    for name, build in scorers.items():
        scorer = build()
        scores[name] = test.score(scorer)
        if isinstance(scorer, RewardModel) and not scorer.log_odds:
            pointwise.append(name)
        reporter.progress(len(scores), len(scorers), "models")
    evaluation = compare(test, {name: own.mean(axis=1) for name, own in scores.items()}, seed, pointwise)
    score_table(test, scores).to_parquet(folder / "scores.parquet", index=False)
    write_evaluation(evaluation, folder)
    metrics: Metrics = dict(evaluation.conditions)
    for name, figures in evaluation.models.items():
        if name in PREFIXES:
            metrics |= {PREFIXES[name] + figure: value for figure, value in figures.items()}
        else:
            metrics[f"{name}_accuracy"] = figures["accuracy"]
    return metrics


PREFIXES = {"reward_model": "", "evaluation_reward_model": "evaluation_", "pointwise_reward_model": "pointwise_"}


def scorers_of(config: RunConfig) -> Iterator[tuple[str, Callable[[], Scorer]]]:
    """Every scorer by its name in MODELS, made when it is asked for: one model at a time is in memory."""
    settings, snapshot = config.settings, config.inputs["preference_snapshot"]
    device = accelerator().device
    for name in MODELS:
        if name in config.inputs:
            yield name, lambda folder=config.inputs[name]: load_reward_model(folder, settings.cache).to(device)  # type: ignore[misc]
    train, validation = read_split(snapshot, "train"), read_split(snapshot, "validation")
    if sentence_embeddings.is_installed():
        yield "minilm", lambda: minilm_logistic(train, validation, settings.seed)
    yield "tfidf", lambda: tfidf_logistic(train, validation, settings.seed)
    yield "longer_wins", LongerWins
    yield "chance", Chance


def score_table(split: Split, scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """One row per model and text, with the columns of contracts.REWARD_SCORES."""
    texts = split.texts[["ad_id", "variant_id", "text", "impressions", "clicks"]]
    tables = [
        texts.assign(model=name, reward_mean=own.mean(axis=1), reward_spread=own.std(axis=1))
        for name, own in scores.items()
    ]
    return pd.concat(tables, ignore_index=True)[list(REWARD_SCORES.column_names)]


if __name__ == "__main__":
    run_job(work)
