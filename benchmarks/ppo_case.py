"""What the entries of `bench_ppo.py` share: the case they all run, its prompts, and the clock that times them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from benchmarks.memory import peak_gib
from benchmarks.wall_clock import now
from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, MarketSettings, PolicySettings
from rlpf_pipeline.training.prompts import Prompt


class Case(BaseModel):
    """One workload: every step draws `samples` texts for each of the same `prompts` originals of the simulated market.

    steps: all of them; where steps are timed, the first is for warming up. micro: texts that are encoded at once, to
    bound memory, where one optimiser step takes more of them. critic_rate: learning rate of trl's critic.
    """

    base: BaseModelSettings = BaseModelSettings()
    layers: int | None = None
    prompts: int = 8
    samples: int = 4
    max_new_tokens: int = 28
    temperature: float = 0.7
    epochs: int = 1
    minibatches: int = 1
    micro: int = 32
    steps: int = 4
    learning_rate: float = 6e-4
    critic_rate: float = 6e-4
    kl_coefficient: float = 0.1
    seed: int = 1

    @property
    def texts(self) -> int:
        return self.prompts * self.samples

    @property
    def lora(self) -> LoraSettings:
        return LoraSettings(top_layers=self.layers)

    def policy_settings(self, prompts: Sequence[Prompt]) -> PolicySettings:
        """The pipeline's settings of the case; penalties off, as trl knows none but the missing end's."""
        longest = max(len(prompt.ids) for prompt in prompts)
        return PolicySettings(
            steps=self.steps,
            prompts_per_step=self.prompts,
            samples_per_prompt=self.samples,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            epochs=self.epochs,
            minibatches=self.minibatches,
            tokens_per_forward=max(1, self.micro // self.samples) * (longest + self.samples * self.max_new_tokens),
            learning_rate=self.learning_rate,
            kl_coefficient=self.kl_coefficient,
            length="none",
            missing_eos_penalty=0.0,
            lora=self.lora,
        )

    def originals(self) -> list[str]:
        """Distinct texts of the simulated market, always the same."""
        texts = simulate_history(MarketSettings(advertisers=self.prompts)).column("text").to_pylist()
        return list(dict.fromkeys(texts))[: self.prompts]

    def make_prompts(self, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
        return [Prompt.of(tokenizer, f"ad{i}", None, text) for i, text in enumerate(self.originals())]


class Timed(NamedTuple):
    """Of the measured steps: seconds in all, processor seconds over all threads, and seconds by part; response tokens
    drawn (ends included, padding not); places that one pass of an update encodes, prompts and padding included; memory
    of the process at its peak."""

    texts: int
    seconds: float
    processor: float
    parts: dict[str, float]
    tokens: int
    places: int
    peak_gib: float


class Clock:
    """Times whole steps and parts of them; the first step is for warming up and is forgotten."""

    def __init__(self) -> None:
        self.step = 0
        self.reset()

    def reset(self) -> None:
        self.started, self.processor, self.parts = now(), time.process_time(), dict[str, float]()
        self.tokens = self.places = 0

    def begin_step(self) -> None:
        if self.step == 1:
            self.reset()
        self.step += 1

    def watch(self, owner: Any, name: str, part: str, then: Callable[[Any], None] = lambda result: None) -> None:
        """Count the seconds of `owner.name(…)` as `part`; `then` sees what it returns."""
        function = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            started = now()
            result = function(*arguments, **options)
            self.parts[part] = self.parts.get(part, 0.0) + now() - started
            then(result)
            return result

        setattr(owner, name, timed)

    def watch_generate(self, model: Any, eos_id: int) -> None:
        """The same for trl's policies, which begin a step with `model.generate(input_ids=…)`."""

        def count(sequences: Tensor) -> None:
            drawn = sequences[:, self.context :] == eos_id
            self.tokens += int((drawn.cumsum(1) - drawn.int() == 0).sum())
            self.places += sequences.numel()

        generate = model.generate

        def started(*arguments: Any, **options: Any) -> Any:
            self.begin_step()
            self.context = options["input_ids"].shape[1]
            return generate(*arguments, **options)

        model.generate = started
        self.watch(model, "generate", "decode", lambda result: count(getattr(result, "sequences", result)))

    def timed(self, texts_per_step: int) -> Timed:
        seconds, processor = now() - self.started, time.process_time() - self.processor
        texts = (self.step - 1) * texts_per_step
        return Timed(texts, seconds, processor, self.parts, self.tokens, self.places, peak_gib())
