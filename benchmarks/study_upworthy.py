"""What helps the reward model on Upworthy: one lever at a time, judged on validation ads; then the test ads, once.

    python -m benchmarks.study_upworthy levers --data packages.csv --home DIR --output study.json
    python -m benchmarks.study_upworthy final --data packages.csv --home DIR --output study.json

`levers` trains each entry of LEVERS and writes its figures on validation ads; what the file already holds is not run
again. `final` trains the profile's recipe (profiles.py) with three seeds and its pointwise twin with one, and looks at
the test ads; then it joins the three, as an ensemble and as their mean weights. Splits are the project's own
(near-duplicates share one). All ads of the file are split together, those of the weeks of broken randomisation
too; these are used for training at most, never to judge.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.running import among, as_command
from rlpf_pipeline.defs import steps
from rlpf_pipeline.defs.stages import folder_of
from rlpf_pipeline.evaluation import split as evaluation_split
from rlpf_pipeline.evaluation.reward_model import evaluate
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.reward_folders import average_members, join_members, load_reward_model, save_reward_model
from rlpf_pipeline.models.reward_model import RewardModel, new_reward_model
from rlpf_pipeline.profiles import PROFILE_SETTINGS
from rlpf_pipeline.settings import (
    BaseModelSettings,
    IngestSettings,
    LoraSettings,
    PairSettings,
    RewardSettings,
    Settings,
)
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import train_reward_model
from rlpf_pipeline.training.snapshot import Ad, read_ads
from rlpf_pipeline.whole_files import write_atomically

SHARES = PairSettings(validation=0.15, test=0.2, evaluation=0.0)
START = RewardSettings(
    epochs=3, patience=3, tokens_per_batch=2048, max_context_tokens=0, heads=1, lora=LoraSettings(top_layers=6)
)
LEVERS: dict[str, dict[str, Any]] = {
    "start": {},
    "learning rate 2e-4": {"learning_rate": 2e-4},
    "learning rate 1e-3": {"learning_rate": 1e-3},
    "mean pooling": {"pooling": "mean"},
    "head learning rate 3e-2": {"head_learning_rate": 3e-2},
    "hard labels": {"hard_labels": True},
    "uniform weights": {"uniform_weights": True},
    "batch of 1024 tokens": {"tokens_per_batch": 1024},
    "five heads": {"heads": 5},
    "without the broken weeks": {"clean_only": True},
    "context of 48 tokens": {"max_context_tokens": 48},
    "top 12 layers": {"lora": LoraSettings(top_layers=12)},
    "all layers": {"lora": LoraSettings()},
}

app = typer.Typer(add_completion=False, help=__doc__)
Data = Annotated[Path, typer.Option(help="The archive's packages.csv.", exists=True)]
Home = Annotated[Path, typer.Option(help="Folder for the converted base model, the tables and the states.")]
Output = Annotated[Path, typer.Option(help="JSON file of the figures; read and extended.")]


class Split(NamedTuple):
    """Ads of all weeks, and of the weeks with random assignment; the latter also as the evaluation has them."""

    every: list[Ad]
    clean: list[Ad]
    for_evaluation: evaluation_split.Split


def read_split(data: Path, home: Path, split: str) -> Split:
    kept = Settings(
        profile="study",
        home=home / "study",
        source="upworthy",
        data=(data.resolve(),),
        ingest=IngestSettings(keep_broken_randomisation=True),
        pairs=SHARES,
    )
    clean = kept.model_copy(update={"home": home / "clean", "ingest": IngestSettings()})
    for settings in (kept, clean):
        steps.raw_multitext_ads(settings)
        steps.variant_performance(settings)
        steps.preference_pairs(settings)
        steps.preference_snapshot(settings)
    of_clean_weeks = {
        ad.ad_id
        for name in ("train", "validation", "test")
        for ad in read_ads(folder_of("preference_snapshot", clean), name)
    }
    snapshot = folder_of("preference_snapshot", kept)
    every = read_ads(snapshot, split)
    clean_only = evaluation_split.read_split(snapshot, split).only(of_clean_weeks)
    return Split(every, [ad for ad in every if ad.ad_id in of_clean_weeks], clean_only)


def judged(model: RewardModel, split: Split) -> dict[str, float]:
    """The evaluation's figures on the ads of the weeks with random assignment."""
    return evaluate(split.for_evaluation, split.for_evaluation.score(model).mean(axis=1))


def train(
    reward: RewardSettings, seed: int, ads: Sequence[Ad], validation: Sequence[Ad], home: Path, states: StateFile
) -> tuple[RewardModel, dict[str, float]]:
    torch.manual_seed(seed)
    model = new_reward_model(BaseModelSettings(), reward, reward.lora, "reward_model", home / "cache")
    started = time.monotonic()
    figures = train_reward_model(model, ads, reward, seed, Reporter("study"), states, validation)
    return model, figures | {"seconds": time.monotonic() - started}


def spreads(model: RewardModel, ads: Sequence[Ad]) -> dict[str, float]:
    """Mean standard deviation over heads, of the ads' texts and of the same texts with their words shuffled."""
    rng = np.random.default_rng(1)
    shuffled = [[" ".join(rng.permutation(text.split())) for text in ad.texts] for ad in ads]
    return {
        name: float(np.concatenate(model.score(texts)).std(axis=1).mean())
        for name, texts in (
            ("spread", [(ad.context, ad.texts) for ad in ads]),
            ("spread_shuffled", [(ad.context, own) for ad, own in zip(ads, shuffled, strict=True)]),
        )
    }


def states_of(reward: RewardSettings, home: Path) -> StateFile:
    return StateFile(home / "states", int(reward.frozen_states_gb * 1e9))


@app.command()
def levers(
    data: Data,
    home: Home,
    output: Output,
    only: Annotated[
        list[str] | None, typer.Option(help="Levers to run.", show_default="all", callback=among(LEVERS))
    ] = None,
    minutes: Annotated[float, typer.Option(help="Start no further lever after this long.")] = 12.0,
) -> None:
    """Train with one setting changed at a time; figures are of the validation ads, at the best of the epochs."""
    started, results = time.monotonic(), json.loads(output.read_text()) if output.is_file() else {}
    training, validation = (read_split(data, home, name) for name in ("train", "validation"))
    states, cut = None, None
    for name in only or LEVERS:
        if name in results or time.monotonic() - started > 60 * minutes:
            continue
        changed = dict(LEVERS[name])
        ads = training.clean if changed.pop("clean_only", False) else training.every
        reward = START.model_copy(update=changed)
        needed = (reward.lora, reward.max_context_tokens, reward.tokens_per_batch, len(ads))
        if needed != cut:
            if states:
                states.__exit__(None, None, None)
            states, cut = states_of(reward, home).__enter__(), needed
        model, figures = train(reward, 1, ads, validation.clean, home, states)
        results[name] = figures | judged(model, validation)
        write_atomically(output, json.dumps(results, indent=1))
        show(results, [name])
    if states:
        states.__exit__(None, None, None)
    show(results, list(LEVERS))


@app.command()
def final(data: Data, home: Home, output: Output, seeds: Annotated[int, typer.Option(help="How many.")] = 3) -> None:
    """The profile's recipe on the test ads with several seeds; pointwise; and the seeds together."""
    results = json.loads(output.read_text()) if output.is_file() else {}
    training, validation, test = (read_split(data, home, name) for name in ("train", "validation", "test"))
    reward: RewardSettings = PROFILE_SETTINGS["upworthy"]["reward"]  # type: ignore[assignment]

    def note(name: str, model: RewardModel, figures: dict[str, float]) -> None:
        results[name] = figures | judged(model, test) | spreads(model, test.clean)
        write_atomically(output, json.dumps(results, indent=1))
        show(results, [name])

    folders = {f"test, pairwise, seed {seed + 1}": home / "members" / str(seed + 1) for seed in range(seeds)}
    members = list(folders.values())
    folders["test, pointwise, seed 1"] = home / "members" / "pointwise"
    with states_of(reward, home) as states:
        for name, folder in folders.items():
            if name in results and folder.is_dir():
                continue
            _, objective, seed = name.split(", ")
            own = reward.model_copy(update={"objective": objective})
            model, figures = train(own, int(seed.split()[1]), training.every, validation.clean, home, states)
            folder.mkdir(parents=True, exist_ok=True)
            save_reward_model(model, folder)
            note(name, model, figures)
    for name, join in (("ensemble", join_members), ("mean weights", average_members)):
        with TemporaryDirectory() as folder:
            join(members, Path(folder))
            note(f"test, {name} of {seeds}", load_reward_model(Path(folder), home / "cache"), {})
    show(results, list(results))
    for figure in ("accuracy", "accuracy_significant"):
        values = [results[name][figure] for name in folders if "pairwise" in name]
        Console().print(f"{figure}: {np.mean(values):.3f} ± {np.std(values, ddof=1) if seeds > 1 else 0:.3f}")


def show(results: dict[str, Any], names: Sequence[str]) -> None:
    columns = ("accuracy", "accuracy_significant", "negative_log_likelihood", "epochs", "seconds")
    table = Table("", *columns)
    for name in names:
        if name in results:
            table.add_row(name, *(f"{results[name].get(column, float('nan')):.4g}" for column in columns))
    Console().print(table)


if __name__ == "__main__":
    as_command(app)
