"""Tokenising the texts of the reward model: ours (distinct texts, in batches) beside one call per text, on one core.

python -m benchmarks.bench_tokenise --texts 100000 --output tokenise.json
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.running import as_command, write_results
from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.models.base import load_tokenizer
from rlpf_pipeline.models.tokens import token_ids
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import BaseModelSettings, MarketSettings


def main(
    texts: Annotated[int, typer.Option(min=5, help="Distinct texts of the simulated market.")] = 100_000,
    output: Annotated[Path | None, typer.Option(help="JSON file of the results.")] = None,
) -> None:
    """Measure and print a table. Example: python -m benchmarks.bench_tokenise --texts 20000"""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    history = simulate_history(MarketSettings(advertisers=texts // 5))
    chosen = list(dict.fromkeys(history["text"].to_pylist()))[:texts]
    tokenizer = load_tokenizer(BaseModelSettings(), load_settings().cache)
    results = {}
    for name, work in {
        "distinct, in batches (ours)": lambda: token_ids(tokenizer, chosen),
        "the same, each text four times": lambda: token_ids(tokenizer, chosen * 4),
        "one call per text": lambda: [tokenizer(text, add_special_tokens=False)["input_ids"] for text in chosen],
    }.items():
        start = time.perf_counter()
        work()
        results[name] = time.perf_counter() - start
    table = Table("entry", "seconds", "distinct texts / s", title=f"{len(chosen):,} texts, one core")
    for name, seconds in results.items():
        table.add_row(name, f"{seconds:.2f}", f"{len(chosen) / seconds:,.0f}")
    Console().print(table)
    if output:
        write_results(output, texts=len(chosen), seconds=results)


if __name__ == "__main__":
    as_command(main)
