"""Texts to token ids, each distinct text once, and a fingerprint that tells one tokenizer from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

TOKENIZER_BATCH = 10_000


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, list[int]]:
    """Token ids of each distinct text, without special tokens, in batches."""
    distinct = list(dict.fromkeys(texts))
    ids: dict[str, list[int]] = {}
    for place in range(0, len(distinct), TOKENIZER_BATCH):
        batch = distinct[place : place + TOKENIZER_BATCH]
        ids |= zip(
            batch, tokenizer(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"], strict=True
        )
    return ids


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of all that decides a text's ids: vocabulary, merges, normalisation, and the ends of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {"model": tokenizer.get_vocab()}
    # Padding, truncation and special tokens around a text are set at each call.
    for transient in ("padding", "truncation", "post_processor"):
        rules.pop(transient, None)
    rules["ends"] = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]
