"""PPO: ours beside trl 1.12.0's, the last there was, and trl's RLOO, on the same base, prompts and LoRA.

    pip install --no-deps --target DIR/trl-1.12.0 trl==1.12.0
    python -m benchmarks.bench_ppo speed --home DIR --output ppo.json
    python -m benchmarks.bench_ppo same-reward --home DIR --output reward.json
    python -m benchmarks.bench_ppo same-reward --home DIR --base smollm2-135m-instruct --samples 4 --max-new-tokens 28 \
        --epochs 1 --temperature 0.7 --learning-rate 6e-4 --critic-rate 3e-5 --steps 12 --output trained.json

`speed`: every entry runs in a process of its own, so that peak memory is its own, `--rounds` times in turn. A step
draws as many texts for the same prompts, encodes as many at once and takes as many optimiser steps; the first step is
not timed. Reward models and trl's critic have the base's size and random heads. On a GPU the same commands run there.
`same-reward`: ours and trl's PPO learn the same planted reward (share of vowels) from equal prompts with equal KL
coefficient and learning rate, a seed at a time; what they reached is compared at equal KL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.ppo_case import Case, Timed
from benchmarks.running import among, as_command, write_results
from rlpf_pipeline.settings import BaseModelSettings
from rlpf_pipeline.training.job import quiet_libraries

ENTRIES = ("ours", "trl PPO", "trl PPO, frozen critic", "trl RLOO")
CURVES = ("ours", "trl PPO")
TRL_PPO, TRL_FOLDER = "trl PPO", "trl-1.12.0"
VOWELS, WORTH = "aeiou", 5.0
GRID = 10

app = typer.Typer(add_completion=False, help=__doc__)
Home = Annotated[Path, typer.Option(help="Folder of the converted base model and of trl-1.12.0.")]
Output = Annotated[Path | None, typer.Option(help="JSON file of the figures.")]
Base = Annotated[str, typer.Option(help="Base model.")]


@app.command()
def speed(
    home: Home,
    prompts: int = 8,
    samples: Annotated[int, typer.Option(help="Texts a prompt.")] = 4,
    max_new_tokens: int = 28,
    epochs: int = 1,
    minibatches: Annotated[int, typer.Option(help="Optimiser steps an epoch.")] = 1,
    micro: Annotated[int, typer.Option(help="Texts encoded at once; bounds memory.")] = 32,
    layers: Annotated[int | None, typer.Option(help="LoRA on this many top layers.", show_default="all")] = None,
    steps: Annotated[int, typer.Option(help="Steps; the first is not timed.")] = 4,
    rounds: Annotated[int, typer.Option(help="How often all entries take their turn.")] = 2,
    base: Base = "smollm2-135m-instruct",
    entries: Annotated[
        list[str] | None, typer.Option("--entry", help="Entries to run.", show_default="all", callback=among(ENTRIES))
    ] = None,
    output: Output = None,
) -> None:
    """Samples, decoded and updated tokens per second, and peak memory."""
    require(entries or ENTRIES, home)
    case = Case(
        base=BaseModelSettings(name=base),
        prompts=prompts,
        samples=samples,
        max_new_tokens=max_new_tokens,
        epochs=epochs,
        minibatches=minibatches,
        micro=micro,
        layers=layers,
        steps=steps,
    )
    results: dict[str, list[Timed]] = {}
    for _ in range(rounds):
        for name in entries or ENTRIES:
            results.setdefault(name, []).append(Timed(*in_own_process("timed", name, case, home)))
            show_speed(case, results)
            if output:
                rows = {name: [one._asdict() for one in own] for name, own in results.items()}
                write_results(output, case=case.model_dump(), results=rows)


@app.command()
def same_reward(
    home: Home,
    seeds: int = 3,
    steps: int = 20,
    base: Base = "tiny",
    prompts: int = 8,
    samples: Annotated[int, typer.Option(help="Texts a prompt.")] = 8,
    max_new_tokens: int = 8,
    epochs: int = 2,
    temperature: Annotated[float, typer.Option(help="Low for the tiny model: it is close to uniform.")] = 0.15,
    learning_rate: float = 2e-3,
    critic_rate: Annotated[float, typer.Option(help="Of trl's critic.")] = 2e-3,
    kl_coefficient: float = 0.1,
    output: Output = None,
) -> None:
    """Reward at equal KL, ours and trl's PPO."""
    require(CURVES, home)
    curves: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in CURVES}
    case = Case(
        base=BaseModelSettings(name=base, dtype="float32"),
        prompts=prompts,
        samples=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        epochs=epochs,
        micro=prompts * samples,
        steps=steps,
        learning_rate=learning_rate,
        critic_rate=critic_rate,
        kl_coefficient=kl_coefficient,
    )
    for seed in range(1, seeds + 1):
        for name, own in curves.items():
            own.append(in_own_process("curve", name, case.model_copy(update={"seed": seed}), home))
        show_rewards(curves)
        if output:
            write_results(output, case=case.model_dump(), curves=curves)


def require(names: Sequence[str], home: Path) -> None:
    """Raises BadParameter, before anything is measured, where trl 1.12.0 is missing."""
    trl = home / TRL_FOLDER
    if any(name.startswith(TRL_PPO) for name in names) and not (trl / "trl").is_dir():
        raise typer.BadParameter(f"trl 1.12.0 is missing: pip install --no-deps --target {trl} trl==1.12.0")


def in_own_process(kind: str, name: str, case: Case, home: Path) -> Any:
    """What the entry writes; trl's PPO sees its own trl before the installed one."""
    environment = os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if name.startswith(TRL_PPO):
        path = [str(home / TRL_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(path)
    with TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "benchmarks.bench_ppo", "entry", kind, name, case.model_dump_json()]
        subprocess.run(
            [*command, str(home / "cache"), str(result)], check=True, env=environment, stdout=subprocess.DEVNULL
        )
        return json.loads(result.read_text())


@app.command(hidden=True)
def entry(kind: str, name: str, case_json: str, cache: Path, output: Path) -> None:
    case = Case.model_validate_json(case_json)
    quiet_libraries()
    result = run_timed(name, case, cache) if kind == "timed" else run_curve(name, case, cache)
    output.write_text(json.dumps(result))


def run_timed(name: str, case: Case, cache: Path) -> Timed:
    if name == "ours":
        from benchmarks.ppo_ours import time_ours

        return time_ours(case, cache)
    if name == "trl RLOO":
        from benchmarks.trl_rloo import time_trl_rloo

        return time_trl_rloo(case, cache)
    from benchmarks.trl_ppo import time_trl_ppo

    return time_trl_ppo(case, cache, frozen_critic=name != "trl PPO")


def run_curve(name: str, case: Case, cache: Path) -> list[tuple[float, float]]:
    if case.base.name == "tiny":  # products too small to share: a second thread only waits for the first
        torch.set_num_threads(1)
    if name == "ours":
        from benchmarks.ppo_ours import curve_of_ours

        return curve_of_ours(case, cache, taste)
    from benchmarks.trl_ppo import curve_of_trl_ppo

    return curve_of_trl_ppo(case, cache, taste)


def taste(text: str) -> float:
    """The share of a text's characters that are vowels, times `WORTH`: bounded, and many texts reach the most."""
    return WORTH * sum(letter in VOWELS for letter in text.casefold()) / max(1, len(text))


def show_speed(case: Case, results: dict[str, list[Timed]]) -> None:
    """Means over rounds; ratios of each round."""
    title = f"{case.prompts} prompts x {case.samples} texts, epochs: {case.epochs}, {case.base.name}"
    table = Table("entry", "samples/s", "ours: times", "in CPU time", title=title)
    for column in ("decode tok/s", "update tok/s", "places/tok", "GiB", "ours: times"):
        table.add_column(column)
    ours = results.get("ours", [])
    for name, own in results.items():
        pairs = list(zip(ours, own, strict=False))
        faster = [its.seconds / mine.seconds for mine, its in pairs]
        thriftier = [its.processor / mine.processor for mine, its in pairs]
        leaner = [mine.peak_gib / its.peak_gib for mine, its in pairs]
        table.add_row(
            name,
            f"{mean(one.texts / one.seconds for one in own):.2f}",
            listed(faster),
            listed(thriftier),
            f"{mean(one.tokens / one.parts['decode'] for one in own):,.0f}",
            f"{mean(case.epochs * one.tokens / (one.seconds - one.parts['decode']) for one in own):,.0f}",
            f"{mean(one.places / one.tokens for one in own):.1f}",
            f"{mean(one.peak_gib for one in own):.2f}",
            listed(leaner),
        )
    console = Console(width=120)
    console.print(table)
    if ours:
        parts = {part: mean(one.parts[part] / (case.steps - 1) for one in ours) for part in ours[0].parts}
        console.print("ours, seconds a step: " + ", ".join(f"{part} {s:.2f}" for part, s in parts.items()))


def listed(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in ratios)


def show_rewards(curves: dict[str, list[list[tuple[float, float]]]]) -> None:
    """Reward interpolated over KL: the mean over equal steps of KL up to the largest that both runs of a seed had."""
    table = Table("seed", "up to KL of", *curves, "difference", "last step: " + ", ".join(curves))
    gains = []
    for seed, runs in enumerate(zip(*curves.values(), strict=True), start=1):
        reach = min(max(kl for kl, _ in run) for run in runs)
        kls = np.linspace(reach / GRID, reach, GRID)
        rewards = [float(np.interp(kls, *zip(*sorted(run), strict=True)).mean()) for run in runs]
        gains.append(rewards[0] - rewards[1])
        last = "; ".join(f"{reward:.2f} at {kl:.2f}" for kl, reward in (run[-1] for run in runs))
        table.add_row(str(seed), f"{reach:.2f}", *(f"{reward:.2f}" for reward in rewards), f"{gains[-1]:+.2f}", last)
    console = Console(width=120)
    console.print(table)
    console.print(f"mean difference at equal KL, ours less trl's: {mean(gains):+.3f}")


if __name__ == "__main__":
    as_command(app)
