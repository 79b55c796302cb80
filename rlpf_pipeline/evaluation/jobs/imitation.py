"""Evaluate the base chat model and both imitation models on held-out examples; writes rewrites.parquet, imitation.md.

    accelerate launch -m rlpf_pipeline.evaluation.jobs.imitation --config run.json

inputs: curated_examples, imitation_v1, imitation_v2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel

from rlpf_pipeline.artifacts import Metrics
from rlpf_pipeline.evaluation.imitation import (
    Figures,
    comparison,
    faithfulness,
    instructions_kept,
    perplexity,
    unseen,
    write_rewrites,
)
from rlpf_pipeline.models.adapters import load_policy
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.training.job import accelerator, run_job
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig

AUTHORS = ("synthetic", "human")


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings, device = config.settings, accelerator().device
    tokenizer = load_tokenizer(settings.base, settings.cache)
    examples = pd.read_parquet(config.inputs["curated_examples"] / "examples.parquet")
    held_out = unseen(examples).assign(finished=True)
    by_author = {author: held_out[held_out.author == author] for author in AUTHORS}
    originals = held_out.original.drop_duplicates().tolist()[: settings.evaluation.originals]
    counts = {author: len(own) for author, own in by_author.items()}
    reporter.say(f"{counts['synthetic']} synthetic and {counts['human']} human rewrites of held-out originals")
    reporter.phase()
    figures: dict[str, Figures] = {"examples": faithfulness(held_out) | instructions_kept(held_out)}
    tables: list[pd.DataFrame] = []
    for name, model in models(config):
        model.to(device)
        own = {f"perplexity_{author}": perplexity(model, tokenizer, rows) for author, rows in by_author.items()}
        table = write_rewrites(
            name,
            model,
            tokenizer,
            originals,
            settings.teacher,
            settings.seed,
            reporter.part(len(tables) * 3 * len(originals), 9 * len(originals), "texts"),
        )
        figures[name] = own | faithfulness(table[table.instruction.isna()]) | instructions_kept(table)
        tables.append(table)
    pd.concat(tables, ignore_index=True).to_parquet(folder / "rewrites.parquet", index=False)
    (folder / "imitation.md").write_text(comparison(figures, len(originals), counts), encoding="utf-8")
    flat: Metrics = {f"{name}_{key}": value for name, own in figures.items() for key, value in own.items()}
    return {"originals": len(originals), **{f"held_out_{author}": n for author, n in counts.items()}, **flat}


def models(config: RunConfig) -> Iterator[tuple[str, PreTrainedModel]]:
    """The models, one in memory at a time."""
    yield "base", load_causal_lm(config.settings.base, config.settings.cache)
    for version in ("v1", "v2"):
        yield version, load_policy(config.inputs[f"imitation_{version}"], config.settings.cache)[0]


if __name__ == "__main__":
    run_job(work)
