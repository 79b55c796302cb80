"""Write the curated examples: the teacher's rewrites, the user's own and human-written ones.

    accelerate launch -m rlpf_pipeline.training.jobs.teacher --config run.json

inputs: preference_snapshot. The first rank does it all.
"""

from __future__ import annotations

from pathlib import Path

from rlpf_pipeline.artifacts import Metrics
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.settings import Settings
from rlpf_pipeline.training.curation import write_curated_examples
from rlpf_pipeline.training.job import accelerator, run_job
from rlpf_pipeline.training.prompts import require_chat_template
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.teacher import Teacher, local_teacher
from rlpf_pipeline.training.teacher_endpoint import endpoint_teacher


def work(config: RunConfig, folder: Path, reporter: Reporter) -> Metrics:
    if not accelerator().is_main_process:  # asked by all, as the first rank would wait for the others' word
        return {}
    settings = config.settings
    snapshot = config.inputs["preference_snapshot"]
    counts = write_curated_examples(make_teacher(settings, reporter), snapshot, settings.teacher, settings.seed, folder)
    reporter.say(", ".join(f"{count} {what}" for what, count in counts.items()))
    return dict(counts)


def make_teacher(settings: Settings, reporter: Reporter) -> Teacher:
    """The teacher of the settings: behind an endpoint, or a model loaded here."""

    def on_progress(done: int, total: int) -> None:
        reporter.progress(done, total, "originals")

    if settings.teacher.endpoint:
        reporter.say(f"the teacher is {settings.teacher.model} at {settings.teacher.endpoint}")
        path = settings.cache / "teacher-answers.jsonl"
        return endpoint_teacher(settings.teacher, path, on_progress, on_known=reporter.phase)
    base = settings.base.model_copy(update={"name": settings.teacher.model or settings.base.name})
    reporter.say(f"loading the teacher, {base.name} (converted on first use)")
    tokenizer = load_tokenizer(base, settings.cache)
    require_chat_template(tokenizer, base.name)
    model = load_causal_lm(base, settings.cache).to(accelerator().device)
    reporter.phase()
    return local_teacher(model, tokenizer, settings.teacher, settings.seed, on_progress)


if __name__ == "__main__":
    run_job(work)
