from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from scipy.stats import chisquare

from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.training.rollout import Sampler
from rlpf_pipeline.training.sampling import Sampling, draw
from rlpf_pipeline_tests.conftest import TINY


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    drawn = draw(logits.expand(20_000, -1), 0.7, torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    weights = np.exp(logits.numpy() / 0.7)
    expected = 20_000 * weights / weights.sum()
    assert chisquare(np.bincount(drawn, minlength=4), expected).pvalue > 0.001


def test_a_draw_inverts_the_cumulative_distribution_of_a_whole_vocabulary() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 4 * torch.randn(500, 1000, generator=generator)
    uniform = torch.rand(500, generator=generator)
    token = draw(logits, 0.7, uniform)[:, None]
    until = torch.softmax(logits.double() / 0.7, dim=-1).cumsum(-1)
    assert (until.gather(1, token).squeeze(1) > uniform - 1e-6).all()
    assert ((until.gather(1, (token - 1).clamp(min=0)) * (token > 0)).squeeze(1) < uniform + 1e-6).all()
    assert (token > 512).any()


def sampled(cache: Path, prompts: list[list[int]], seed: int = 5, temperature: float = 1e-4) -> list[list[list[int]]]:
    tokenizer = load_tokenizer(TINY, cache)
    sampling = Sampling(6, temperature, tokenizer.eos_token_id, tokenizer.pad_token_id)
    uniform = torch.rand(2 * len(prompts), 6, generator=torch.Generator().manual_seed(seed))
    return Sampler(load_causal_lm(TINY, cache), sampling).sample(prompts, 2, uniform)


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
    assert all(text[-1] == tokenizer.eos_token_id or len(text) == 6 for text in texts)
    assert min(map(len, texts)) < 6 == max(map(len, texts))


def test_the_same_seed_draws_the_same_texts(cache: Path) -> None:
    assert sampled(cache, [[1, 7]], temperature=1.0) == sampled(cache, [[1, 7]], temperature=1.0)
    assert sampled(cache, [[1, 7]], temperature=1.0) != sampled(cache, [[1, 7]], seed=6, temperature=1.0)


def test_a_text_depends_on_its_own_random_numbers_alone(cache: Path) -> None:
    """Its neighbours end at other times and leave the batch, or are drawn elsewhere: it says the same."""
    model, tokenizer = load_causal_lm(TINY, cache), load_tokenizer(TINY, cache)
    prompts = [[1, 2 + i] for i in range(16)]
    uniform = torch.rand(32, 6, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(6, 2.0, tokenizer.eos_token_id, pad_id=0)
    sampler = Sampler(model, sampling)
    together = sampler.sample(prompts, 2, uniform)
    halves = [sampler.sample(prompts[own], 2, uniform[rows]) for own, rows in HALVES]
    assert together == halves[0] + halves[1]


HALVES = ((slice(0, 8), slice(0, 16)), (slice(8, 16), slice(16, 32)))


def test_decoding_in_place_draws_the_texts_of_decoding_row_by_row(cache: Path) -> None:
    """Twice with one decoder: the second call finds the first one's tensors, and shorter prompts than they hold."""
    prompts = [[1, *range(40, 40 + n)] for n in range(0, 36, 3)]
    uniforms = torch.rand(2, 36, 7, generator=torch.Generator().manual_seed(2))
    cases = list(zip((prompts, [prompt[:9] for prompt in prompts]), uniforms, strict=True))
    model, endless = load_causal_lm(TINY, cache).double(), Sampling(7, 0.15, eos_id=-1, pad_id=0)
    drawn = [text for own, uniform in cases for text in Sampler(model, endless).row_by_row(own, 3, uniform)]
    sampler = Sampler(model, endless._replace(eos_id=Counter(chain(*drawn)).most_common(1)[0][0]))
    lengths = set()
    for own, uniform in cases:
        texts = sampler.row_by_row(own, 3, uniform)
        assert sampler.in_place(own, 3, uniform) == texts
        lengths |= set(map(len, texts))
    assert len(lengths) > 3
    assert sampler.static.width == 64
