"""`rlpf score` beside the forward pass of training, on the same texts: reading and writing must cost next to nothing.

    python -m benchmarks.bench_score --texts 1000 --output score.json

Entries: the trainer's forward (its own batches of ads, with gradients recorded, no backward), `score_file` from CSV to
Parquet with groups on the model as its folder gives it back (adapters merged), and the same with every row four times,
as files of deliveries have it. Each runs in a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.memory import peak_gib
from benchmarks.running import as_command, write_results
from rlpf_pipeline.evaluation.score_file import ScoreColumns, score_file
from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.models.reward_folders import load_reward_model, save_reward_model
from rlpf_pipeline.models.reward_model import new_reward_model
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, MarketSettings, RewardSettings
from rlpf_pipeline.training.reward_batches import RewardBatches
from rlpf_pipeline.training.snapshot import Ad

ENTRIES = {"training": "forward of training", "score": "rlpf score", "repeated": "rlpf score, every row four times"}


def main(
    texts: Annotated[int, typer.Option(min=1, help="Texts of the simulated market.")] = 1000,
    base: Annotated[str, typer.Option(help="Base model.")] = "smollm2-135m-instruct",
    output: Annotated[Path | None, typer.Option(help="JSON file of the results.")] = None,
    entry: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure and print a table. Example: python -m benchmarks.bench_score --texts 500"""
    if entry:
        print(json.dumps(measure(entry, texts, base)))
        return
    results = {}
    for name in ENTRIES:
        options = ["--texts", str(texts), "--base", base, "--entry", name]
        command = [sys.executable, "-m", "benchmarks.bench_score", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results[name] = json.loads(done.stdout.splitlines()[-1])
    forward = results["training"]["texts"] / results["training"]["seconds"]
    table = Table("entry", "rows", "seconds", "rows / s", "times training", "peak GiB", title=base)
    for name, row in results.items():
        rate = row["rows"] / row["seconds"]
        cells = (
            f"{row['rows']:,}",
            f"{row['seconds']:.1f}",
            f"{rate:,.1f}",
            f"{rate / forward:.2f}",
            f"{row['peak']:.2f}",
        )
        table.add_row(ENTRIES[name], *cells)
    Console().print(table)
    if output:
        write_results(output, base=base, results=results)


def measure(entry: str, texts: int, base: str) -> dict[str, Any]:
    settings = RewardSettings()
    model = new_reward_model(
        BaseModelSettings(name=base), settings, LoraSettings(), "reward_model", load_settings().cache
    )
    history = simulate_history(MarketSettings(advertisers=texts // 5)).to_pandas()
    rows = history.drop_duplicates(["ad_id", "text"])[:texts]
    if entry == "training":
        batches = RewardBatches(model, ads_of(rows), settings, 0)
        model.train()
        start = time.perf_counter()
        for number in range(len(batches.parts)):
            model(*batches.part(number).pieces)
        seconds = time.perf_counter() - start
    else:
        rows = pd.concat([rows] * (4 if entry == "repeated" else 1))
        with TemporaryDirectory() as folder:
            save_reward_model(model, Path(folder))
            model = load_reward_model(Path(folder), load_settings().cache)
            rows.sample(frac=1, random_state=0).to_csv(Path(folder) / "ads.csv", index=False)
            columns = ScoreColumns("text", ("context",), ("ad_id", "context"))
            start = time.perf_counter()
            score_file(model, Path(folder) / "ads.csv", columns, Path(folder) / "scored.parquet")
            seconds = time.perf_counter() - start
    return {
        "rows": len(rows),
        "texts": len(rows.drop_duplicates(["ad_id", "text"])),
        "seconds": seconds,
        "peak": peak_gib(),
    }


def ads_of(rows: pd.DataFrame) -> list[Ad]:
    """One pair an ad is enough: every text is encoded."""
    none, one = np.zeros(1, dtype=int), np.ones(1)
    return [
        Ad(ad_id, own.context.iloc[0], tuple(own.text), (1,) * len(own), (0,) * len(own), none, none, one / 2, one, one)
        for ad_id, own in rows.groupby("ad_id")
    ]


if __name__ == "__main__":
    as_command(main)
