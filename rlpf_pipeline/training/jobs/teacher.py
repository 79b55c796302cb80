"""Write the curated examples: the teacher's rewrites and human-written ones.

    accelerate launch -m rlpf_pipeline.training.jobs.teacher --config run.json

inputs: preference_snapshot.
"""

from __future__ import annotations

from pathlib import Path

from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.training.job import Metrics, accelerator, run_job
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.snapshot import read_ads
from rlpf_pipeline.training.teacher import write_curated_examples


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    settings = config.settings
    reporter.say(f"loading the teacher, {settings.base.name} (converted on first use)")
    model = load_causal_lm(settings.base, settings.cache).to(accelerator().device)
    tokenizer = load_tokenizer(settings.base, settings.cache)
    ads = read_ads(config.inputs["preference_snapshot"], "train")
    counts = write_curated_examples(model, tokenizer, ads, settings.teacher, settings.seed, folder, reporter)
    reporter.say(f"{counts['synthetic']} synthetic, {counts['human']} human-written, {counts['rejected']} refused")
    return dict(counts)


if __name__ == "__main__":
    run_job(work)
