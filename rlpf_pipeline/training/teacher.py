"""Curated examples: rewrites of real ads, synthetic ones by a teacher model and human-written ones from other variants.

The study's teacher was a 70B model and its human examples were contractors' rewrites under instructions. Here the
teacher is the base chat model itself (a larger one in production), helped by the 36 rewrites in `seed_examples.jsonl`
that a large language model wrote for this project. A human-written example is another text that a human wrote for the
same ad, whatever its clicks. Rewrites that fail the filter are kept with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpf_pipeline.contracts import CURATED_EXAMPLES
from rlpf_pipeline.settings import TeacherSettings
from rlpf_pipeline.training.prompts import chat_ids, decode
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.rollout import sample_in_batches
from rlpf_pipeline.training.snapshot import Ad, original_of, shuffled

INSTRUCTIONS = (
    "Rephrase and shorten this ad",
    "Make this ad clearer",
    "Make this ad actionable",
    "Rewrite this ad to evoke empathy",
    "Turn this ad into a question",
    "Focus this ad on its selling points",
)
SEED_EXAMPLES = Path(__file__).with_name("seed_examples.jsonl")
SYSTEM = "You rewrite ads in one short sentence. Answer with the new text only."
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
WORD = re.compile(r"[^\W\d_]{4,}")


def write_curated_examples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ads: Sequence[Ad],
    settings: TeacherSettings,
    seed: int,
    folder: Path,
    reporter: Reporter,
) -> dict[str, int]:
    """Write examples.parquet (contracts.CURATED_EXAMPLES) and rejects.parquet (the same, and `reason`) to `folder`."""
    ads = shuffled(ads, seed)
    synthetic = synthesise(model, tokenizer, ads[: settings.examples], settings, seed, reporter)
    synthetic["reason"] = [reason_to_refuse(o, r) for o, r in zip(synthetic.original, synthetic.rewrite, strict=True)]
    accepted = pd.concat([pd.read_json(SEED_EXAMPLES, lines=True), synthetic[synthetic.reason == ""]])
    human = human_examples(ads, settings.human_examples)
    columns = list(CURATED_EXAMPLES.column_names)
    pd.concat([accepted[columns], human[columns]]).to_parquet(folder / "examples.parquet", index=False)
    synthetic[synthetic.reason != ""].to_parquet(folder / "rejects.parquet", index=False)
    return {"synthetic": len(accepted), "human": len(human), "rejected": int((synthetic.reason != "").sum())}


def synthesise(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ads: Sequence[Ad],
    settings: TeacherSettings,
    seed: int,
    reporter: Reporter,
) -> pd.DataFrame:
    """One rewrite of each ad's original by the teacher, the instructions taken in turn."""
    originals = [original_of(ad) for ad in ads]
    asked = [INSTRUCTIONS[i % len(INSTRUCTIONS)] for i in range(len(ads))]
    prompts = [
        chat_ids(tokenizer, [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{ask}: {text}"}])
        for ask, text in zip(asked, originals, strict=True)
    ]
    drawn = sample_in_batches(
        model,
        prompts,
        1,
        settings.batch_size,
        lambda done: reporter.progress(done, len(prompts), "originals"),
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        generator=torch.Generator(model.device).manual_seed(seed),
    )
    rewrites = [decode(tokenizer, ids) if ids[-1] == tokenizer.eos_token_id else "" for (ids,) in drawn]
    return pd.DataFrame({"original": originals, "instruction": asked, "rewrite": rewrites, "author": "synthetic"})


def human_examples(ads: Sequence[Ad], limit: int) -> pd.DataFrame:
    """Other variants of an ad as rewrites of its original, one after the other over all ads until `limit`."""
    variants = max(len(ad.texts) for ad in ads)
    rows = [
        (original_of(ad), ad.texts[number]) for number in range(1, variants) for ad in ads if number < len(ad.texts)
    ]
    human = pd.DataFrame(rows[:limit], columns=["original", "rewrite"])
    return human.assign(instruction=None, author="human")


def reason_to_refuse(original: str, rewrite: str) -> str:
    """Why a synthetic rewrite is no good example, or an empty string."""
    if not rewrite:
        return "not finished within the length limit"
    if rewrite.casefold() == original.casefold():
        return "a copy of the original"
    new = set(NUMBER.findall(rewrite)) - set(NUMBER.findall(original))
    if new:
        return f"numbers the original does not have: {', '.join(sorted(new))}"
    words = len(rewrite.split())
    if not 4 <= words <= 2 * len(original.split()):
        return f"length of {words} words"
    if not _content_words(original) & _content_words(rewrite):
        return "shares no content word with the original"
    return ""


def _content_words(text: str) -> set[str]:
    return {word.casefold() for word in WORD.findall(text)}
