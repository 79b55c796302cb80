"""Texts drawn by vLLM in the place of `rollout.py`: a server beside the trainer, with the policy as it is at each call.

The server is the command `vllm` of the PATH, and may live in an environment of its own: it wants other versions of
PyTorch and transformers than we do, and what is deterministic here need not be so there. It holds the reference (base
and imitation v2, merged), listens on 127.0.0.1 behind a key made for the run, and reads the adapter from a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import plain_copy
from rlpf_pipeline.models.lora_linear import ADAPTER
from rlpf_pipeline.training.process_group import process_group
from rlpf_pipeline.training.sampling import Sampling

START_SECONDS, ANSWER_SECONDS, POLL_SECONDS = 900.0, 3600.0, 0.5
LOG_LINES = 15
LEAST_RANK = 8
"""vLLM takes powers of two from this on as the highest rank of an adapter."""
BLOCK = 128
"""Tokens that a text's keys and values may be rounded up to."""
MOST_CACHE_BYTES = 4 * 2**30
TOKENS_OF_A_PASS = 4096
OF_THE_LAUNCHER = ("ACCELERATE_", "GROUP_", "LOCAL_", "MASTER_", "RANK", "ROLE_", "TORCHELASTIC_", "WORLD_SIZE")
"""Variables by which the server would take itself for one of our ranks."""


class VllmFailed(Exception):
    """The server ended, or refused what it was asked."""


class VllmSampler:
    """Draws from an adapted model as it is at each call. folder: through which the adapter reaches the server."""

    def __init__(self, server: Server, policy: PeftModel, sampling: Sampling, folder: Path) -> None:
        self.server, self.policy, self.sampling, self.folder = server, policy, sampling, folder
        self.names = (f"policy-{number}" for number in count())

    def sample(self, prompts: Sequence[Sequence[int]], samples: int, uniform: Tensor) -> list[list[list[int]]]:
        """As `Sampler.sample`, but vLLM draws random numbers of its own, from a hash of the prompt's `uniform`."""
        seeds = [seed_of(own) for own in uniform.cpu().chunk(len(prompts))]
        with self.adapter() as name, ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda ids, seed: self.draw(name, ids, samples, seed), prompts, seeds))

    @contextmanager
    def adapter(self) -> Iterator[str]:
        """The server's name for the policy's present weights: a new one each time, since by the name of old ones it
        finds again what it has computed with them."""
        name = next(self.names)
        path = self.folder / name
        self.policy.save_pretrained(path, safe_serialization=True, save_embedding_layers=False)
        self.server.ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        yield name
        self.server.ask("/v1/unload_lora_adapter", {"lora_name": name})
        shutil.rmtree(path)

    def draw(self, name: str, prompt: Sequence[int], samples: int, seed: int) -> list[list[int]]:
        """Token ids [sample], each token from softmax(logits / temperature) without truncation."""
        max_new_tokens, temperature, eos_id, _ = self.sampling
        asked = {
            "model": name,
            "prompt": list(prompt),
            "n": samples,
            "seed": seed,
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
            **{"ignore_eos": True, "stop_token_ids": [eos_id]},  # the tokenizer's end mark alone ends a text
            "return_token_ids": True,
        }
        choices = json.loads(self.server.ask("/v1/completions", asked))["choices"]
        return [choice["token_ids"] for choice in sorted(choices, key=lambda choice: choice["index"])]


class Server:
    """A vLLM server on this machine: its process, and how to ask it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, key: str) -> None:
        self.process, self.port, self.key = process, port, key

    def ask(self, path: str, body: object = None) -> bytes:
        """GET, or POST where there is a body. Raises VllmFailed where it does not answer, or with anything but 200."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
            reply = connection.getresponse()
            said = reply.read()
        except (OSError, HTTPException) as error:
            raise VllmFailed(f"vLLM does not answer {path}: {error}") from error
        finally:
            connection.close()
        if reply.status != 200:
            raise VllmFailed(f"vLLM answers {path} with {reply.status}: {said.decode(errors='replace')}")
        return said

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                self.ask("/health")
                return
            except VllmFailed:
                time.sleep(POLL_SECONDS)
        raise VllmFailed(f"vLLM did not start (exit code {self.process.poll()})")


@contextmanager
def vllm_sampler(
    policy: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    texts: int,
    longest_prompt: int,
    folder: Path,
) -> Iterator[VllmSampler]:
    """A server that lives as long as the context, for about `texts` at once; `folder` is its own, and goes with it.

    Raises UserError where there is no vLLM, VllmFailed, with the end of its log, where it does not start or gives up;
    then the folder stays, until the next run.
    """
    command = shutil.which("vllm")
    if command is None:
        raise UserError(
            "policy.sampler is vllm, and there is no command `vllm` on the PATH. Install vLLM in an environment of its "
            "own and put its bin folder behind yours on the PATH, or set policy.sampler to own."
        )
    shutil.rmtree(folder, ignore_errors=True)
    plain_copy(policy).save_pretrained(folder / "reference")
    tokenizer.save_pretrained(folder / "reference")
    port, key, log = free_port(), secrets.token_hex(), folder / "vllm.log"
    words = options(policy, texts, longest_prompt + sampling.max_new_tokens)
    serve = [command, "serve", str(folder / "reference"), "--host=127.0.0.1", f"--port={port}", *words]
    with log.open("wb") as file, process_group(serve, environment(policy.device, key), file) as process:
        server = Server(process, port, key)
        try:
            server.wait_until_ready()
            yield VllmSampler(server, policy, sampling, folder)
        except VllmFailed as error:
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise VllmFailed("\n".join([f"{error}. The end of {log}:", *lines])) from error
    shutil.rmtree(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def options(policy: PeftModel, texts: int, tokens: int) -> list[str]:
    """The server's, for about `texts` at once of at most `tokens`, prompts included."""
    rank = policy.peft_config[ADAPTER].r
    values = {
        "dtype": str(policy.dtype).removeprefix("torch."),
        "generation-config": "vllm",
        "max-model-len": tokens,
        "max-num-batched-tokens": max(tokens, TOKENS_OF_A_PASS),
        "max-loras": 1,
        "max-lora-rank": max(LEAST_RANK, 1 << (rank - 1).bit_length()),
        "kv-cache-memory-bytes": cache_bytes(policy.config, policy.dtype, texts, tokens),
        # Of what the trainer leaves free vLLM asks for this share before it looks at the bytes it is given.
        "gpu-memory-utilization": 0.05,
    }
    # A prompt read in parts has no seeded random numbers on a CPU (vLLM 0.32).
    flags = ["--enable-lora", "--no-enable-chunked-prefill", "--disable-uvicorn-access-log"]
    flags += ["--enforce-eager"] if policy.device.type == "cpu" else []
    return [*flags, *(f"--{name}={value}" for name, value in values.items())]


def seed_of(uniform: Tensor) -> int:
    return int.from_bytes(hashlib.blake2b(uniform.numpy().tobytes(), digest_size=6).digest())


def cache_bytes(config: PretrainedConfig, dtype: torch.dtype, texts: int, tokens: int) -> int:
    """Keys and values of that many texts of `tokens` each, prompts included; texts for which there is no room wait."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    per_token = 2 * config.num_hidden_layers * getattr(config, "num_key_value_heads", heads) * width * dtype.itemsize
    per_text = per_token * -(-tokens // BLOCK) * BLOCK
    return max(per_text, min(per_text * texts, MOST_CACHE_BYTES))


def environment(device: torch.device, key: str) -> dict[str, str]:
    """The server's: nothing of our ranks, and of the GPUs the trainer's alone."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_LAUNCHER)}
    if device.type == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        own["CUDA_VISIBLE_DEVICES"] = visible.split(",")[device.index] if visible else str(device.index)
    return own | {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
