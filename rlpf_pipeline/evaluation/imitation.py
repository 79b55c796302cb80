"""What imitation models learned: how well they foresee rewrites that none of them saw, and what they write themselves.

Held-out originals and their rewrites come from the curated examples. Each model, the base chat model too, is asked as
it is deployed ("another text for this ad"), and, since that prompt names no instruction, with the two instructions
whose fulfilment can be counted: a question has a question mark, a shortened text has fewer words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpf_pipeline.contracts import IMITATION_REWRITES
from rlpf_pipeline.evaluation.policy import text_log_probs
from rlpf_pipeline.models.packing import Group
from rlpf_pipeline.settings import TeacherSettings
from rlpf_pipeline.training.example_filter import is_copy, new_names, new_numbers
from rlpf_pipeline.training.prompts import chat_ids, decode, messages, prompt_ids, require_room
from rlpf_pipeline.training.rollout import batches_of_samples, gathered
from rlpf_pipeline.training.sampling import Sampling
from rlpf_pipeline.training.teacher import QUESTION, SHORTEN, request

LARGE = 1e6
"""A perplexity from which on only its magnitude is told."""

Figures = dict[str, float | None]
MODELS = {"examples": "the held-out rewrites", "base": "base chat model", "v1": "imitation v1", "v2": "imitation v2"}
COLUMNS = (
    ("perplexity, synthetic", "perplexity_synthetic", ".2f"),
    ("perplexity, human", "perplexity_human", ".2f"),
    ("copies", "copies", ".0%"),
    ("new numbers", "new_numbers", ".0%"),
    ("new names", "new_names", ".0%"),
    ("finished", "finished", ".0%"),
    ("question kept", "question_kept", ".0%"),
    ("shortened", "shortened", ".0%"),
)


def unseen(examples: pd.DataFrame) -> pd.DataFrame:
    """The held-out examples (contracts.CURATED_EXAMPLES) whose rewrite no training example has."""
    learned = examples.rewrite[~examples.held_out]
    return examples[examples.held_out & ~examples.rewrite.isin(learned)]


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: pd.DataFrame) -> float | None:
    """exp of the mean negative log-likelihood of the rewrites' tokens, end mark included; None where there are none.

    Infinite for a model that takes them for so unlikely that no float holds it.
    """
    if examples.empty:
        return None
    groups = [
        Group(
            prompt_ids(tokenizer, original),
            [[*tokenizer(rewrite, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]],
        )
        for original, rewrite in zip(examples.original, examples.rewrite, strict=True)
    ]
    total = text_log_probs(model, groups, 1.0, tokenizer.pad_token_id).sum()
    nats = -total / sum(len(group.texts[0]) for group in groups)
    with np.errstate(over="ignore"):
        return float(np.exp(nats))


def write_rewrites(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    originals: Sequence[str],
    teacher: TeacherSettings,
    seed: int,
    on_batch: Callable[[int], None],
) -> pd.DataFrame:
    """One text for each original as the model is deployed, and one under each of the two instructions
    (contracts.IMITATION_REWRITES), sampled as the teacher's are."""
    asked = [(original, instruction) for instruction in (None, QUESTION, SHORTEN) for original in originals]
    requests = [chat_ids(tokenizer, request(ask, text) if ask else messages(text)) for text, ask in asked]
    require_room(model, requests, teacher.max_new_tokens, "teacher.max_new_tokens")
    batches = batches_of_samples(
        model,
        requests,
        1,
        Sampling.of(tokenizer, teacher),
        torch.Generator().manual_seed(seed),
        teacher.batch_size,
    )
    drawn = gathered(batches, on_batch)
    rows = [
        (name, *own, decode(tokenizer, ids), ids[-1] == tokenizer.eos_token_id)
        for own, (ids,) in zip(asked, drawn, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(IMITATION_REWRITES.column_names))


def faithfulness(rewrites: pd.DataFrame) -> Figures:
    """Shares of the texts that are a copy, that hold a number or a name which their original does not, and finished."""
    return {
        "copies": share(is_copy, rewrites),
        "new_numbers": share(new_numbers, rewrites),
        "new_names": share(new_names, rewrites),
        "finished": float(rewrites.finished.mean()) if len(rewrites) else None,
    }


def instructions_kept(rewrites: pd.DataFrame) -> Figures:
    """Share of texts asked to be a question that hold one, and of texts asked to be shorter with fewer words."""
    question, shorten = (rewrites[rewrites.instruction == asked] for asked in (QUESTION, SHORTEN))
    return {
        "question_kept": share(lambda original, rewrite: "?" in rewrite, question),
        "shortened": share(lambda original, rewrite: 0 < len(rewrite.split()) < len(original.split()), shorten),
    }


def share(holds: Callable[[str, str], object], rewrites: pd.DataFrame) -> float | None:
    """Share of the rewrites for which `holds(original, rewrite)`; None of none."""
    found = [bool(holds(original, text)) for original, text in zip(rewrites.original, rewrites.rewrite, strict=True)]
    return float(np.mean(found)) if found else None


def comparison(figures: Mapping[str, Figures], originals: int, examples: Mapping[str, int]) -> str:
    """The table of all models in Markdown. examples: held-out rewrites by author."""
    header = ["", *(title for title, *_ in COLUMNS)]
    rows = [[MODELS[name], *(cell(own.get(key), form) for _, key, form in COLUMNS)] for name, own in figures.items()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
    counts = " and ".join(f"{count} {author}" for author, count in examples.items())
    return f"{table}\n\n{counts} rewrites of held-out originals; texts written for {originals} of these originals.\n"


def cell(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" if value < LARGE else f"{value:.1e}"
