"""Training a reward model: ours beside trl's RewardTrainer, same base, LoRA, dtype, pairs and tokens per step.

    python -m benchmarks.bench_reward compare --data packages.csv --home DIR --output reward.json
    python -m benchmarks.bench_reward compare --home DIR
    python -m benchmarks.bench_reward compare --data SNAPSHOT --home DIR --ads 4000 --tokens-per-step 16384 --layers 30
    python -m benchmarks.bench_reward gpu --home DIR

`compare` takes pairs of real ads (--data: Upworthy's headlines, no context), or a synthetic case of five variants
behind a context of 40 tokens. Every entry runs in a process of its own, so that peak memory is its own. The same pairs
for all, as many epochs; trl takes hard labels, as it must. The validation loss is always that of the soft labels.
`gpu` prints tokens/s, model FLOP utilisation and memory of our trainer for SmolLM2-135M and for a Llama of 7B shape
with random weights. Ours is deterministic, as jobs are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.memory import peak_gib
from benchmarks.running import among, as_command, write_results
from benchmarks.wall_clock import now
from rlpf_pipeline.evaluation.pair_metrics import negative_log_likelihood
from rlpf_pipeline.models.base import load_tokenizer
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.reward_model import new_reward_model
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, RewardSettings
from rlpf_pipeline.training.job import accelerator, be_deterministic
from rlpf_pipeline.training.reward_trainer import RewardTrainer
from rlpf_pipeline.training.snapshot import Ad, read_needed_ads

BASE = BaseModelSettings()
SEVEN_B = "llama-7b-shaped"
TOP_LAYERS = 12
CONTEXT = 40
SYNTHETIC_VARIANTS = 5
WORDS = (
    "bread",
    "street",
    "people",
    "story",
    "world",
    "never",
    "this",
    "why",
    "you",
    "what",
    "best",
    "see",
    "new",
    "day",
)
ENTRIES = ("ours", "ours, one head", "trl, tuned", "trl, defaults")

app = typer.Typer(add_completion=False, help=__doc__)
Home = Annotated[Path, typer.Option(help="Folder for the converted base model and the tables.")]


class Case(NamedTuple):
    """What all entries train on and how. data: the archive's CSV or a preference snapshot; None: the synthetic case.
    ads: training ads, half as many in the synthetic case. layers: LoRA on so many top layers."""

    data: str | None
    ads: int
    epochs: int
    layers: int
    tokens_per_step: int

    def settings(self, heads: int) -> RewardSettings:
        return RewardSettings(
            heads=heads,
            epochs=self.epochs,
            tokens_per_batch=self.tokens_per_step,
            tokens_per_forward=max(self.tokens_per_step, RewardSettings().tokens_per_forward),
            max_context_tokens=0 if self.data else CONTEXT,
            learning_rate=5e-4,
            lora=LoraSettings(top_layers=self.layers),
        )

    def read(self, home: Path) -> tuple[list[Ad], list[Ad]]:
        """Training and validation ads."""
        if self.data is None:
            return synthetic_ads(self.ads // 2, 1), synthetic_ads(20, 2)
        if Path(self.data).is_dir():
            train, validation = (read_needed_ads(Path(self.data), split) for split in ("train", "validation"))
            return train[: self.ads], validation
        from benchmarks.study_upworthy import read_split  # builds the snapshot, with all of the pipeline

        data = Path(self.data)
        return read_split(data, home, "train").every[: self.ads], read_split(data, home, "validation").clean


def synthetic_ads(count: int, seed: int) -> list[Ad]:
    """Ads of five texts of 12 to 27 words behind a context of 40 words and more, with random labels."""
    rng, ads = np.random.default_rng(seed), []
    left, right = np.triu_indices(SYNTHETIC_VARIANTS, 1)
    for number in range(count):
        texts = tuple(" ".join(rng.choice(WORDS, rng.integers(12, 28))) for _ in range(SYNTHETIC_VARIANTS))
        p, ones = rng.uniform(0.05, 0.95, len(left)), np.ones(len(left))
        counts = (1000,) * SYNTHETIC_VARIANTS, (10,) * SYNTHETIC_VARIANTS
        context = " ".join(rng.choice(WORDS, CONTEXT + 8))
        ads.append(Ad(f"ad{seed}-{number}", context, texts, *counts, left, right, p, ones, ones))
    return ads


def soft_loss(scores: Sequence[np.ndarray], ads: Sequence[Ad]) -> float:
    """Mean cross-entropy of sigmoid(score_left - score_right) against the soft labels, in nats."""
    margins = np.concatenate([own[ad.left] - own[ad.right] for own, ad in zip(scores, ads, strict=True)])
    p = np.concatenate([ad.p_left_better for ad in ads])
    return negative_log_likelihood(margins, p)


def run_ours(settings: RewardSettings, train: list[Ad], validation: list[Ad], home: Path) -> dict[str, Any]:
    be_deterministic()
    torch.manual_seed(1)
    model = new_reward_model(BASE, settings, settings.lora, "reward_model", home / "cache")
    with TemporaryDirectory() as scratch, StateFile(Path(scratch) / "states", 10**10) as states:
        trainer = RewardTrainer(model, train, settings, 1, states)
        marks = [now()]
        while not trainer.finished:
            trainer.train_step()
            if trainer.epoch_is_over:
                marks.append(now())
        peak = peak_gib()
    seen = trainer.running
    scores = [own.mean(1) for own in model.score([(ad.context, ad.texts) for ad in validation])]
    return {
        "seconds": marks[-1] - marks[0],
        "first_epoch_seconds": marks[1] - marks[0],
        "texts": seen["texts"] * settings.epochs,
        "padding": 1 - seen["used"] / seen["places"],
        "peak_gib": peak,
        "scores": scores,
    }


@app.command(hidden=True)
def entry(name: str, case_json: str, home: Path, output: Path) -> None:
    case = Case(*json.loads(case_json))
    train, validation = case.read(home)
    ours, epochs = {"ours": 5, "ours, one head": 1}, case.epochs
    if name in ours:
        result = run_ours(case.settings(ours[name]), train, validation, home)
    else:
        from benchmarks.trl_reward import run_trl

        result = run_trl(name == "trl, tuned", case.settings(1), train, validation, BASE, home / "cache")
    result["peak_gib"] = peak_gib() if name not in ours else result["peak_gib"]
    result["validation_loss"] = soft_loss(result.pop("scores"), validation)
    pairs, texts = sum(len(ad.left) for ad in train) * epochs, sum(len(ad.texts) for ad in train) * epochs
    result |= {"pairs_per_second": pairs / result["seconds"], "texts_per_second": texts / result["seconds"]}
    output.write_text(json.dumps(result))


@app.command()
def compare(
    home: Home,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="packages.csv of the archive, or a preference snapshot; without it, the synthetic case."
        ),
    ] = None,
    ads: Annotated[int, typer.Option(help="Training ads (half as many in the synthetic case).")] = 120,
    epochs: int = 2,
    layers: Annotated[int, typer.Option(help="LoRA on this many top layers.")] = TOP_LAYERS,
    tokens_per_step: int = 1024,
    entries: Annotated[
        list[str] | None, typer.Option("--entry", help="Entries to run.", show_default="all", callback=among(ENTRIES))
    ] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file of the figures.")] = None,
) -> None:
    """All entries, one after the other: real ads with --data, the synthetic case without."""
    case, results = Case(str(data) if data else None, ads, epochs, layers, tokens_per_step), {}
    for name in entries or ENTRIES:
        with TemporaryDirectory() as scratch:
            result = Path(scratch) / "result.json"
            command = ["entry", name, json.dumps(case), str(home), str(result)]
            subprocess.run([sys.executable, "-m", "benchmarks.bench_reward", *command], check=True)
            results[name] = json.loads(result.read_text())
        show("real ads" if data else "synthetic ads", results)
        if output:
            write_results(output, **results)


def show(title: str, results: dict[str, Any]) -> None:
    table = Table(
        title, "pairs/s", "ours: times", "texts/s", "epoch 1, s", "all, s", "peak GiB", "padding", "val. loss"
    )
    ours = results.get("ours")
    for name, r in results.items():
        times = f"{ours['pairs_per_second'] / r['pairs_per_second']:.2f}" if ours else ""
        figures = (f"{r['first_epoch_seconds']:.1f}", f"{r['seconds']:.1f}", f"{r['peak_gib']:.2f}")
        table.add_row(
            name,
            f"{r['pairs_per_second']:.1f}",
            times,
            f"{r['texts_per_second']:.1f}",
            *figures,
            f"{100 * r['padding']:.1f} %",
            f"{r['validation_loss']:.4f}",
        )
    Console(width=120).print(table)


@app.command()
def gpu(
    home: Home,
    peak_tflops: Annotated[float, typer.Option(help="The accelerator's dense bfloat16 peak.")] = 989.0,
    tokens_per_step: int = 32768,
    seven_b_tokens: Annotated[int, typer.Option(help="Tokens per step of the Llama.")] = 8192,
    steps: int = 20,
    bases: Annotated[
        list[str] | None, typer.Option("--base", help="Bases to run.", show_default=f"{BASE.name}, {SEVEN_B}")
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="With torch.compile, whose time is not counted.")] = False,
) -> None:
    """Our trainer on the accelerator, with LoRA on all layers: nothing is kept from the first epoch."""
    be_deterministic()
    table = Table("", "tokens/step", "steps/s", "tokens/s", "MFU", "peak GiB", "padding")
    for name in bases or [BASE.name, SEVEN_B]:
        base = BaseModelSettings(name=str(seven_b_folder(home)) if name == SEVEN_B else name)
        tokens = seven_b_tokens if name == SEVEN_B else tokens_per_step
        settings = Case(None, 0, 1, 10**6, tokens).settings(heads=5).model_copy(update={"compile": compiled})
        with accelerator().device:
            model = new_reward_model(base, settings, settings.lora, "reward_model", home / "cache")
        ads = synthetic_ads((steps + 3) * tokens // 150, 1)
        with TemporaryDirectory() as scratch, StateFile(Path(scratch) / "states", 0) as states:
            trainer = RewardTrainer(model, ads, settings, 1, states)
            for _ in range(3):
                trainer.train_step()
            before, started, timed = trainer.running["used"], now(), min(steps, trainer.total - 3)
            for _ in range(timed):
                trainer.train_step()
            seconds = now() - started
            rate = (trainer.running["used"] - before) / seconds
            padding = 1 - trainer.running["used"] / trainer.running["places"]
        # Two FLOPs a weight and token forward, two for the gradient of the activations; frozen weights need no other.
        weights = sum(p.numel() for p in model.trunk.get_base_model().layers.parameters())
        utilisation = 4 * weights * rate / (peak_tflops * 1e12)
        speed = (f"{tokens:,}", f"{timed / seconds:.2f}", f"{rate:,.0f}", f"{100 * utilisation:.1f} %")
        table.add_row(Path(name).name, *speed, f"{peak_gib():.2f}", f"{100 * padding:.1f} %")
        del model, trainer
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    Console(width=120).print(table)


def seven_b_folder(home: Path) -> Path:
    """A Llama of the shape of Llama 2 7B with random weights and SmolLM2's tokenizer, made once."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = home / SEVEN_B
    if not (folder / "config.json").is_file():
        tokenizer = load_tokenizer(BASE, home / "cache")
        config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
        torch.set_default_dtype(torch.bfloat16)
        with accelerator().device:
            model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    as_command(app)
