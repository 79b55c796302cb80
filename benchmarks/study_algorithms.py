"""What each policy algorithm gains on a finished run's models: the same start, rewards and prompts, side by side.

    python -m benchmarks.study_algorithms --home .rlpf/demo --seed 13 --seed 14

Needs a finished `rlpf run` (imitation v2, both reward models, the snapshot). Every policy is trained as `rlpf train
policy` does and judged by the policy evaluation's own job, on originals of the test split; in the simulated market by
the planted truth as well. Differences are to imitation v2 on the same originals, errors clustered by original. A seed
changes training and sampling, not the data. What is finished is kept in `studies/algorithms` of the home, so a stopped
study goes on; the pipeline's own models stay as they are.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.running import among, as_command
from rlpf_pipeline.defs.launcher import launch
from rlpf_pipeline.settings import Algorithm
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.whole_files import write_atomically

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
COLUMNS = {"evaluation_reward": 1.0, "planted_ctr": 100.0}
"""Differences that are shown, and their scale: rewards in nats, CTR in percentage points."""
Result = dict[str, Any]


def main(
    home: Annotated[Path, typer.Option(exists=True, help="The profile's folder of a finished run.")] = Path(
        ".rlpf/demo"
    ),
    algorithm: Annotated[
        list[str] | None,
        typer.Option(help="Repeat for several.", show_default=", ".join(ALGORITHMS), callback=among(ALGORITHMS)),
    ] = None,
    seed: Annotated[list[int], typer.Option(help="Of training and sampling; repeat for several.")] = [13],  # noqa: B006
    samples: Annotated[int, typer.Option(min=1, help="Texts for each original.")] = 8,
) -> None:
    """Train, judge and print a table. Example: python -m benchmarks.study_algorithms --algorithm ppo"""
    folder = home.resolve() / "studies" / "algorithms"
    results = [
        one_run(home.resolve(), folder / f"{chosen}-{number}", chosen, number, samples)
        for number in seed
        for chosen in ALGORITHMS
        if not algorithm or chosen in algorithm
    ]
    Console().print(table_of(results))
    write_atomically(folder / "results.json", json.dumps(results, indent=2) + "\n")


def one_run(home: Path, folder: Path, algorithm: Algorithm, seed: int, samples: int) -> Result:
    """The metrics of the policy evaluation, with the seconds of training; kept in result.json while it is of the same
    models, settings and samples."""
    kept = folder / "result.json"
    training = RunConfig.read(home / "runs/adllama/run.json").by(algorithm)
    training = seeded(training, seed, folder / "policy")
    about = {
        "algorithm": algorithm,
        "seed": seed,
        "samples": samples,
        "recipe": training.recipe.model_dump(mode="json"),
    }
    found: Result = json.loads(kept.read_text()) if kept.exists() else {}
    if about.items() <= found.items():
        return found
    start = time.perf_counter()
    run(training, folder / "train.json", "rlpf_pipeline.training.jobs.policy")
    seconds = time.perf_counter() - start
    judging = seeded(RunConfig.read(home / "runs/policy_evaluation/run.json"), seed, folder / "evaluation")
    evaluation = judging.settings.evaluation.model_copy(update={"samples_per_original": samples})
    judging = judging.model_copy(
        update={
            "inputs": {**judging.inputs, "adllama": training.output},
            "settings": judging.settings.model_copy(update={"evaluation": evaluation}),
        }
    )
    run(judging, folder / "evaluate.json", "rlpf_pipeline.evaluation.jobs.policy")
    metrics = json.loads((folder / "evaluation/manifest.json").read_text())["metrics"]
    result = {**about, "seconds": seconds, **metrics}
    write_atomically(kept, json.dumps(result, indent=2) + "\n")
    return result


def seeded(config: RunConfig, seed: int, output: Path) -> RunConfig:
    settings = config.settings.model_copy(update={"seed": seed})
    recipe = config.recipe.model_copy(update={"settings": {**config.recipe.settings, "seed": seed}})
    return config.model_copy(update={"settings": settings, "recipe": recipe, "output": output})


def run(config: RunConfig, path: Path, module: str) -> None:
    write_atomically(path, config.model_dump_json(indent=2))
    launch(module, path, {})


def table_of(results: list[Result]) -> Table:
    table = Table("algorithm", "seed", "seconds", "KL", *COLUMNS, "tokens", "distinct", title="Less imitation v2")
    for result in results:
        shown = [difference_in(result, column, scale) for column, scale in COLUMNS.items()]
        kl, tokens, distinct = (result[f"adllama_{name}"] for name in ("kl", "tokens", "distinct"))
        cells = (f"{kl:.2f}", *shown, f"{tokens:.1f}", f"{distinct:.2f}")
        table.add_row(result["algorithm"], str(result["seed"]), f"{result['seconds']:.0f}", *cells)
    return table


def difference_in(result: Result, column: str, scale: float) -> str:
    """With its standard error; empty where there is no planted truth."""
    if f"{column}_difference" not in result:
        return ""
    difference, error = (scale * result[f"{column}_difference{kind}"] for kind in ("", "_standard_error"))
    return f"{difference:+.3f} ({error:.3f})"


if __name__ == "__main__":
    as_command(main)
