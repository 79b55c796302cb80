"""Drawing by vLLM, against a stand-in for its server and, where the command `vllm` is there, against the real one."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import attach_lora
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings
from rlpf_pipeline.training.rollout import MergedSampler
from rlpf_pipeline.training.sampling import Sampling
from rlpf_pipeline.training.vllm_sampler import VllmFailed, VllmSampler, cache_bytes, environment, vllm_sampler
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.training.test_process_group import is_alive

PROMPTS = [[1, 30, 31], [1, 40, 41, 42, 43]]
Start = Callable[[], AbstractContextManager[VllmSampler]]


def random_policy(base: BaseModelSettings, cache: Path) -> PeftModel:
    torch.manual_seed(3)
    policy = attach_lora(load_causal_lm(base, cache), LoraSettings())
    move(policy)
    return policy


def move(policy: PeftModel) -> None:
    for parameter in policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter.data, std=0.1)


def install_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a command `vllm` on the PATH that is `fake_vllm.py`."""
    command = folder / "bin" / "vllm"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_vllm.py")} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)


@pytest.fixture
def start(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts the stand-in beside a tiny policy."""
    install_stand_in(tmp_path, monkeypatch)
    policy, tokenizer = random_policy(TINY, cache), load_tokenizer(TINY, cache)
    sampling = Sampling(6, 0.7, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return lambda: vllm_sampler(policy, tokenizer, sampling, 6, 5, tmp_path / "server")


def asked(sampler: VllmSampler) -> list[dict[str, object]]:
    return [json.loads(line) for line in (sampler.folder / "asked.jsonl").read_text().splitlines()]


def uniform(seed: int, rows: int = 6, places: int = 6) -> torch.Tensor:
    return torch.rand(rows, places, generator=torch.Generator().manual_seed(seed))


def test_texts_come_in_order_and_their_random_numbers_from_ours(start: Start) -> None:
    with start() as sampler:
        first, again, other = (sampler.sample(PROMPTS, 3, uniform(seed)) for seed in (1, 1, 2))
    end = sampler.sampling.eos_id
    assert [[ids[0] for ids in own] for own in first] == [[300, 301, 302]] * 2
    assert {ids[-1] for own in first for ids in own} == {end}
    seeds = [own[0][1] for own in first]
    assert seeds[0] != seeds[1]
    assert again == first
    assert [own[0][1] for own in other] != seeds


def test_a_prompt_keeps_its_seed_beside_other_prompts(start: Start) -> None:
    """As on several ranks, each of which draws for its share."""
    with start() as sampler:
        both = sampler.sample(PROMPTS, 3, uniform(1))
        alone = sampler.sample(PROMPTS[1:], 3, uniform(1)[3:])
    assert alone == both[1:]


def test_what_is_drawn_from_is_the_whole_distribution(start: Start) -> None:
    with start() as sampler:
        sampler.sample(PROMPTS, 3, uniform(1))
        request = next(body for body in asked(sampler) if body.get("prompt") == PROMPTS[1])
    wanted = {"n": 3, "temperature": 0.7, "max_tokens": 6, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
    assert request.items() >= wanted.items()
    assert request["stop_token_ids"] == [sampler.sampling.eos_id]
    assert request["ignore_eos"]


def test_every_call_sends_the_policy_as_it_is(start: Start) -> None:
    with start() as sampler:
        before, same = (sampler.sample(PROMPTS, 1, uniform(1, 2))[0][0][2] for _ in range(2))
        move(sampler.policy)
        after = sampler.sample(PROMPTS, 1, uniform(1, 2))[0][0][2]
        names = [body["lora_name"] for body in asked(sampler) if "lora_path" in body]
        gone = [body["lora_name"] for body in asked(sampler) if "lora_name" in body and "lora_path" not in body]
        left = {path.name for path in sampler.folder.iterdir()}
    assert before == same != after
    assert len(set(names)) == 3  # what was computed under a former name would be found again
    assert gone == names
    assert left == {"reference", "vllm.log", "asked.jsonl"}


def test_the_server_is_ours_alone_and_ends_with_the_context(start: Start) -> None:
    with start() as sampler:
        pid, key = sampler.server.process.pid, sampler.server.key
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert "--host=127.0.0.1" in words
        assert not any(key in word for word in words)
        sampler.server.key = "another"
        with pytest.raises(VllmFailed, match="401"):
            sampler.server.ask("/v1/completions", {"n": 1})
        assert is_alive(pid)
    assert not is_alive(pid)
    assert not sampler.folder.exists()


def test_a_server_that_does_not_start_says_why(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VLLM", "does not start")
    with pytest.raises(VllmFailed, match=r"exit code 1\)\. The end of .*vllm\.log:\nno room for the cache"), start():
        pass


def test_a_server_that_gives_up_is_told_with_its_answer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VLLM", "refuses")
    with pytest.raises(VllmFailed, match=r"/v1/completions with 500: .*out of memory.*The end of"), start() as sampler:
        sampler.sample(PROMPTS, 1, uniform(1, 2))


def test_without_vllm_the_user_is_told_what_to_do(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"no command `vllm`.*policy\.sampler to own"), start():
        pass


def test_the_server_knows_nothing_of_our_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "ACCELERATE_USE_CPU"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    own = environment(torch.device("cuda", 1), "secret")
    assert own["CUDA_VISIBLE_DEVICES"] == "6"
    assert own["VLLM_API_KEY"] == "secret"
    assert not own.keys() & {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "ACCELERATE_USE_CPU"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert environment(torch.device("cuda", 1), "secret")["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in environment(torch.device("cpu"), "secret")


@pytest.mark.parametrize(
    ("texts", "tokens", "expected"),
    [
        (10, 100, 10 * 128 * 1024),  # 2 x 4 layers x 2 heads x 16 x 4 bytes a token, tokens in blocks of 128
        (1, 129, 256 * 1024),
        (1_000_000, 100, 4 * 2**30),
        (1, 8_000_000, 8_000_000 * 1024),  # one text must find room
    ],
)
def test_the_cache_holds_the_texts_of_a_step(texts: int, tokens: int, expected: int) -> None:
    config = PretrainedConfig(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, hidden_size=64)
    assert cache_bytes(config, torch.float32, texts, tokens) == expected


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[VllmSampler]:
    """The real server, with a model of 128 x 4 whose heads are as wide as its kernels want them."""
    folder = tmp_path_factory.mktemp("vllm")
    tokenizer = load_tokenizer(TINY, cache)
    tokenizer.save_pretrained(folder / "base")
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            initializer_range=0.15,
        )
    ).save_pretrained(folder / "base")
    base = BaseModelSettings(name=str(folder / "base"), dtype="float32")
    sampling = Sampling(12, 1.0, tokenizer.eos_token_id, tokenizer.pad_token_id)
    with vllm_sampler(random_policy(base, cache), tokenizer, sampling, 64, 5, folder / "server") as sampler:
        yield sampler


needs_vllm = pytest.mark.skipif(shutil.which("vllm") is None, reason="the command `vllm` is not installed")


@pytest.mark.slow
@needs_vllm
def test_vllm_draws_as_we_do_where_chance_has_no_say(real: VllmSampler) -> None:
    """At a temperature near 0 every token is the likeliest one, whichever random numbers decide."""
    real.sampling = real.sampling._replace(temperature=1e-4, max_new_tokens=12)
    drawn = []
    for _ in range(2):
        move(real.policy)
        ours = MergedSampler(real.policy, real.sampling).sample(PROMPTS, 2, uniform(1, 4, 12))
        assert real.sample(PROMPTS, 2, uniform(1, 4, 12)) == ours
        drawn.append(ours)
    assert drawn[0] != drawn[1]


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_vllm_draws_from_the_policy_at_its_temperature(real: VllmSampler, temperature: float) -> None:
    """2,000 first tokens, against the probabilities that PPO reckons with."""
    real.sampling = real.sampling._replace(temperature=temperature, max_new_tokens=1)
    drawn = real.sample(PROMPTS[:1], 2000, uniform(2, 2000, 1))[0]
    with torch.no_grad():
        logits = real.policy(input_ids=torch.tensor(PROMPTS[:1])).logits[0, -1]
    chances = torch.softmax(logits.double() / temperature, -1).numpy()
    counts = np.bincount([ids[0] for ids in drawn], minlength=len(chances))
    often = chances * len(drawn) >= 5
    seen = np.append(counts[often], counts[~often].sum())
    expected = np.append(chances[often], chances[~often].sum()) * len(drawn)
    assert often.sum() > 10
    assert chisquare(seen, expected).pvalue > 1e-3
