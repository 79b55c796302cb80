from pathlib import Path

import numpy as np
import torch
from scipy.stats import chisquare

from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.training.rollout import Sampling, draw, sample
from rlpf_pipeline_tests.conftest import TINY


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    drawn = draw(logits.expand(20_000, -1), 0.7, torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    weights = np.exp(logits.numpy() / 0.7)
    expected = 20_000 * weights / weights.sum()
    assert chisquare(np.bincount(drawn, minlength=4), expected).pvalue > 0.001


def sampled(cache: Path, prompts: list[list[int]], seed: int = 5, temperature: float = 1e-4) -> list[list[list[int]]]:
    tokenizer = load_tokenizer(TINY, cache)
    sampling = Sampling(6, temperature, tokenizer.eos_token_id, tokenizer.pad_token_id)
    uniform = torch.rand(2 * len(prompts), 6, generator=torch.Generator().manual_seed(seed))
    return sample(load_causal_lm(TINY, cache), prompts, 2, sampling, uniform)


def test_cached_decoding_of_padded_prompts_is_greedy_decoding_one_by_one(cache: Path) -> None:
    model, prompts = load_causal_lm(TINY, cache), [[1, 40, 41, 42, 43], [1, 50]]
    for prompt, (first, second) in zip(prompts, sampled(cache, prompts), strict=True):
        ids = list(prompt)
        for _ in first:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert first == second == ids[len(prompt) :]


def test_a_text_ends_with_its_end_mark(cache: Path) -> None:
    tokenizer = load_tokenizer(TINY, cache)
    texts = [text for own in sampled(cache, [[1, 2 + i] for i in range(64)], temperature=4.0) for text in own]
    assert all(tokenizer.eos_token_id not in text[:-1] for text in texts)
    assert {len(text) for text in texts} <= set(range(1, 7))


def test_the_same_seed_draws_the_same_texts(cache: Path) -> None:
    assert sampled(cache, [[1, 7]], temperature=1.0) == sampled(cache, [[1, 7]], temperature=1.0)
    assert sampled(cache, [[1, 7]], temperature=1.0) != sampled(cache, [[1, 7]], seed=6, temperature=1.0)


def test_a_text_depends_on_its_own_random_numbers_alone(cache: Path) -> None:
    """Its neighbours end at other times and leave the batch, or are drawn elsewhere: it says the same."""
    model, tokenizer = load_causal_lm(TINY, cache), load_tokenizer(TINY, cache)
    prompts = [[1, 2 + i] for i in range(16)]
    uniform = torch.rand(32, 6, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(6, 2.0, tokenizer.eos_token_id, pad_id=0)
    together = sample(model, prompts, 2, sampling, uniform)
    halves = [sample(model, prompts[own], 2, sampling, uniform[rows]) for own, rows in HALVES]
    assert together == halves[0] + halves[1]


HALVES = ((slice(0, 8), slice(0, 16)), (slice(8, 16), slice(16, 32)))
