"""Curated examples: rewrites that imitation models learn from, and those that were refused, with the reason.

Synthetic ones come from the teacher and from `seed_examples.jsonl`, 36 rewrites that a large language model wrote for
this project; human-written ones are other texts that a human wrote for the same ad, whatever their clicks. The user's
own file adds to either. What the teacher and the file give goes through one filter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlpf_pipeline.contracts import CURATED_EXAMPLES
from rlpf_pipeline.settings import TeacherSettings
from rlpf_pipeline.training.example_filter import reason_to_refuse
from rlpf_pipeline.training.own_examples import read_own_examples
from rlpf_pipeline.training.snapshot import Ad, original_of, read_needed_ads, shuffled
from rlpf_pipeline.training.teacher import Teacher, synthesise

SEED_EXAMPLES = Path(__file__).with_name("seed_examples.jsonl")


def write_curated_examples(
    teacher: Teacher, snapshot: Path, settings: TeacherSettings, seed: int, folder: Path
) -> dict[str, int]:
    """Write examples.parquet (contracts.CURATED_EXAMPLES) and rejects.parquet (the same, and `reason`) to `folder`.

    Returns how many are synthetic, human, of the user's own file, held out, and rejected.
    """
    ads = shuffled(read_needed_ads(snapshot, "train"), seed)
    synthetic = synthesise(teacher, [original_of(ad) for ad in ads[: settings.examples]])
    synthetic["reason"] = [reason_to_refuse(o, r) for o, r in zip(synthetic.original, synthetic.rewrite, strict=True)]
    judged = [synthetic]
    if settings.examples_file:
        judged.append(read_own_examples(settings.examples_file, snapshot))
    accepted = [table[table.reason == ""].drop(columns="reason") for table in judged]
    human = human_examples(ads, settings.human_examples)
    examples = pd.concat([pd.read_json(SEED_EXAMPLES, lines=True), *accepted, human], ignore_index=True)
    examples["held_out"] = [is_held_out(original, settings.held_out) for original in examples.original]
    rejects = pd.concat(judged, ignore_index=True).query("reason != ''")
    examples[list(CURATED_EXAMPLES.column_names)].to_parquet(folder / "examples.parquet", index=False)
    rejects.to_parquet(folder / "rejects.parquet", index=False)
    return {
        "synthetic": int((examples.author == "synthetic").sum()),
        "human": int((examples.author == "human").sum()),
        "own": len(accepted[1]) if settings.examples_file else 0,
        "held_out": int(examples.held_out.sum()),
        "rejected": len(rejects),
    }


def human_examples(ads: Sequence[Ad], limit: int) -> pd.DataFrame:
    """Other variants of an ad as rewrites of its original, one after the other over all ads until `limit`."""
    variants = max(len(ad.texts) for ad in ads)
    rows = [
        (original_of(ad), ad.texts[number]) for number in range(1, variants) for ad in ads if number < len(ad.texts)
    ]
    human = pd.DataFrame(rows[:limit], columns=["original", "rewrite"])
    return human.assign(instruction=None, author="human")


def is_held_out(original: str, share: float) -> bool:
    """Whether an original's hash falls into the share that is kept from training: the same in every run and round."""
    return int.from_bytes(hashlib.sha256(original.encode()).digest()[:8]) < share * 2**64
