"""Suggestions for a text: distinct finished samples of a policy, the best first where a reward model is given.

Used by `rlpf generate --policy DIR --text "…" -n 4`; sampling is that of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpf_pipeline.artifacts import read_manifest
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import load_policy
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.settings import PolicySettings, faults_of
from rlpf_pipeline.training.best_of import BestOf, load_best_of
from rlpf_pipeline.training.example_filter import is_copy
from rlpf_pipeline.training.prompts import Prompt, cleaned, decode, positions_of
from rlpf_pipeline.training.rewards import head_gains
from rlpf_pipeline.training.rollout import batches_of_samples
from rlpf_pipeline.training.sampling import Sampling

DEFAULTS = PolicySettings()
ROUNDS = 5
"""Times that texts are drawn for an original which has too few distinct ones."""
TEXTS_AT_ONCE = 64


class Policy(NamedTuple):
    """A policy ready to write, with the sampling it was trained with, and how it chooses among its texts if it does."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: PolicySettings
    best_of: BestOf | None = None


class Suggestion(NamedTuple):
    """reward: gain over the original by the reward model, log odds; spread: of it over the model's heads. None without
    one."""

    text: str
    reward: float | None
    spread: float | None


def load_writer(folder: Path, cache: Path, device: torch.device, otherwise: PolicySettings = DEFAULTS) -> Policy:
    """The policy of a model folder; otherwise: how an imitation model writes, which was trained without drawing.

    Raises UserError where the folder holds none, or one of settings unknown here."""
    model, tokenizer = load_policy(folder, cache)
    manifest = read_manifest(folder)
    trained_with = manifest.recipe.settings.get("policy") if manifest else None
    try:
        settings = PolicySettings.model_validate(trained_with) if trained_with else otherwise
    except ValidationError as error:
        raise UserError(
            f"{folder} was trained with settings that this version does not take: {faults_of(error)}. Train it again, "
            "or use the version that it was trained with."
        ) from error
    best_of = load_best_of(folder, tokenizer, settings, cache, device)
    return Policy(model.to(device), tokenizer, settings, best_of)


def suggest(
    policy: Policy,
    ads: Sequence[tuple[str | None, str]],
    n: int,
    seed: int,
    reward_model: RewardModel | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    numbers: Sequence[int] | None = None,
) -> list[list[Suggestion]]:
    """Up to `n` suggestions for each ad's text: none twice, none a copy of the text, none cut off.

    ads: (context, text); the context is what reward models read before a text, where they were trained with one. Ranked
    by the reward model (`ranked`), otherwise in the order drawn. Fewer than `n` where `ROUNDS` draws gave no more.
    on_progress: called with ads served and ads in all; a draw that leaves an ad with too few counts for 1 / `ROUNDS`
    of it. numbers: what errors call the texts, None for 1, 2, …
    Raises UserError for a text that is empty, too long or no UTF-8.
    """
    named = zip(ads, numbers or range(1, len(ads) + 1), strict=True)
    prompts = [prompt_for(policy, context, text, number) for (context, text), number in named]
    found: list[dict[str, str]] = [{} for _ in prompts]
    served: dict[int, list[Suggestion]] = {}
    generator = torch.Generator().manual_seed(seed)
    done = 0  # in draws, ROUNDS an ad
    for draws_left in reversed(range(ROUNDS)):
        lacking = [number for number in range(len(prompts)) if number not in served]
        if not lacking:
            break
        asked = iter(lacking)
        for drawn in batches_of_samples(
            policy.model,
            [prompts[number].ids for number in lacking],
            n * (policy.best_of.n if policy.best_of else 1),
            Sampling.of(policy.tokenizer, policy.settings),
            generator,
            TEXTS_AT_ONCE,
        ):
            batch = list(islice(asked, len(drawn)))
            if policy.best_of:
                drawn = policy.best_of.pick([prompts[number] for number in batch], drawn)
            for number, own in zip(batch, drawn, strict=True):
                add_fresh(policy, prompts[number].original, own, found[number], n)
                if len(found[number]) == n or not draws_left:
                    served[number] = ranked(prompts[number], list(found[number].values()), reward_model)
                done += 1 + draws_left if number in served else 1
            on_progress(done // ROUNDS, len(prompts))
    return [served[number] for number in range(len(prompts))]


def add_fresh(policy: Policy, original: str, drawn: Sequence[Sequence[int]], found: dict[str, str], n: int) -> None:
    """Add the finished texts that are new and no copies of the original to `found`, up to `n`."""
    for ids in drawn:
        text = decode(policy.tokenizer, ids)
        fresh = text and not is_copy(original, text)
        if fresh and ids[-1] == policy.tokenizer.eos_token_id and len(found) < n:
            found.setdefault(text.casefold(), text)


def ranked(prompt: Prompt, texts: list[str], reward_model: RewardModel | None) -> list[Suggestion]:
    """The texts with their gains over the original, that first whose gain less its spread over the heads is highest; in
    their order without a reward model.

    Heads disagree about texts unlike any that people wrote, and people click these less (docs/ppo.md).
    """
    if reward_model is None or not texts:
        return [Suggestion(text, None, None) for text in texts]
    heads = head_gains(reward_model, [prompt], [texts])
    mean, spread = heads.mean(axis=1), heads.std(axis=1)
    best_first = np.argsort(spread - mean, kind="stable")
    return [Suggestion(texts[i], float(mean[i]), float(spread[i])) for i in best_first]


def prompt_for(policy: Policy, context: str | None, text: str, number: int) -> Prompt:
    """The prompt for an ad, written as in training: Unicode NFC, white space collapsed."""
    before, original = cleaned(context or ""), cleaned(text)
    try:
        f"{before}{original}".encode()
    except UnicodeEncodeError as error:
        raise UserError(f"Text number {number} or its context is no UTF-8: {text!r}. Give it in UTF-8.") from error
    if not any(letter.isalpha() for letter in original):
        raise UserError(f"Text number {number} holds no letter: {text!r}. Give the text of an ad, or leave it out.")
    prompt = Prompt.of(policy.tokenizer, str(number), before or None, original)
    room = positions_of(policy.model) - policy.settings.max_new_tokens
    if len(prompt.ids) > room:
        raise UserError(
            f"Text number {number} is too long: {len(prompt.ids)} tokens with the request, and the policy reads "
            f"{room:.0f}. Shorten it, or leave it out."
        )
    return prompt
