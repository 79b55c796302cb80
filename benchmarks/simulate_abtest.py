"""Is the A/B analysis right? Experiments with a planted relative risk, A/A experiments, and daily peeking.

    python -m benchmarks.simulate_abtest --runs 1000 --output simulation.json

Every run is an experiment of the study's shape (study_shape.py), analysed by the report's own estimator: log-binomial
with covariates and HC3. Peeking looks at cumulative estimates after each of 70 days, where the report would look
(`may_look`), in two ways in which data come: all advertisers there from the first day, and advertisers that start on
random days.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import special

from benchmarks import study_shape
from benchmarks.running import among, as_command, write_results
from rlpf_pipeline.abtest.log_binomial import log_binomial
from rlpf_pipeline.abtest.ratio import delta_method
from rlpf_pipeline.abtest.sequential import critical_value, may_look

KINDS = ("naive", "quasi", "hc0", "hc1", "hc3")
PARTS = ("planted", "aa", "peeking")
DAYS = 70
PEEKED_ADVERTISERS = 10_000


def experiments(runs: int, advertisers: int, relative_risk: float, sigma: float, seed: int) -> dict[str, object]:
    """Bias, spread, coverage and rejections over `runs` experiments."""
    estimates, errors = [], {kind: [] for kind in KINDS}
    for run in track(range(runs), f"relative risk {relative_risk}"):
        frame = study_shape.advertisers(advertisers, np.random.default_rng([seed, run]), relative_risk, sigma)
        fit = log_binomial(frame, study_shape.FORMULA, successes="clicks", trials="impressions")
        estimates.append(fit.coefficients["treatment"])
        for kind in KINDS:
            errors[kind].append(fit.standard_errors[kind]["treatment"])
    effects, truth, critical = np.array(estimates), math.log(relative_risk), float(special.ndtri(0.975))
    return {
        "runs": runs,
        "advertisers": advertisers,
        "relative_risk": relative_risk,
        "impressions_sigma": sigma,
        "bias": float(effects.mean() - truth),
        "bias_standard_error": float(effects.std(ddof=1) / math.sqrt(runs)),
        "standard_deviation": float(effects.std(ddof=1)),
        "mean_standard_error": {kind: float(np.mean(errors[kind])) for kind in KINDS},
        "coverage": {kind: share(np.abs(effects - truth) <= critical * np.array(errors[kind])) for kind in KINDS},
        "rejections": {kind: share(np.abs(effects) > critical * np.array(errors[kind])) for kind in KINDS},
    }


def share(hits: np.ndarray) -> float:
    return float(np.mean(hits))


def peeking(runs: int, staggered: bool, seed: int) -> dict[str, object]:
    """Share of A/A runs that ever reject: with the confidence sequence, and with 1.96 at every look."""
    sequence, fixed = 0, 0
    for run in track(range(runs), "peeking, staggered" if staggered else "peeking"):
        z, errors = daily_looks(PEEKED_ADVERTISERS, staggered, np.random.default_rng([seed, run]))
        sequence += any(abs(value) > critical_value(error) for value, error in zip(z, errors, strict=True))
        fixed += any(abs(value) > 1.96 for value in z)
    return {
        "runs": runs,
        "advertisers": PEEKED_ADVERTISERS,
        "days": DAYS,
        "advertisers_start": "on random days" if staggered else "all on the first day",
        "sequence_rejections": sequence / runs,
        "fixed_rejections": fixed / runs,
    }


def daily_looks(number: int, staggered: bool, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """z and standard error of the log CTR ratio, cumulative to each day, in an experiment without an effect."""
    treated = rng.permutation(number) % 2 == 1
    ctr = np.minimum(study_shape.BASE_CTR * np.exp(rng.normal(-0.18, study_shape.CTR_SIGMA, number)), 0.5)
    per_day = np.exp(rng.normal(8.0, study_shape.IMPRESSIONS_SIGMA, number)) / DAYS
    start = rng.integers(0, DAYS, number) if staggered else np.zeros(number, int)
    impressions, clicks = np.zeros(number), np.zeros(number)
    z, errors = [], []
    for day in range(DAYS):
        shown = rng.poisson(per_day * (start <= day))
        clicked = rng.binomial(shown, np.minimum(ctr * np.exp(rng.normal(0, 0.2, number)), 1))
        impressions += shown
        clicks += clicked
        if may_look(impressions, treated):
            risk = delta_method(clicks, impressions, treated)
            z.append(risk.z)
            errors.append(risk.standard_error)
    return z, errors


def main(
    runs: Annotated[int, typer.Option(min=2, help="Experiments of each kind.")] = 1000,
    advertisers: Annotated[int, typer.Option(help="Of the experiments with covariates.")] = study_shape.ADVERTISERS,
    tail: Annotated[list[float], typer.Option(help="Standard deviations of log impressions.")] = [1.3, 1.7],  # noqa: B006
    part: Annotated[list[str], typer.Option(help=", ".join(PARTS), callback=among(PARTS))] = list(PARTS),  # noqa: B006
    seed: int = 6,
    output: Annotated[Path | None, typer.Option(help="JSON file of the results.")] = None,
) -> None:
    """Simulate and print the tables. Example: python -m benchmarks.simulate_abtest --runs 100"""
    results: dict[str, list[dict[str, object]]] = {"experiments": [], "peeking": []}
    for sigma in tail:
        if "planted" in part:
            planted = experiments(runs, advertisers, study_shape.RELATIVE_RISK, sigma, seed)
            results["experiments"].append(planted)
        if "aa" in part:
            results["experiments"].append(experiments(runs, advertisers, 1.0, sigma, seed + 1))
    if "peeking" in part:
        results["peeking"] = [peeking(runs, staggered, seed + 2) for staggered in (False, True)]
    for table in tables(results):
        Console().print(table)
    if output:
        write_results(output, **results)


def tables(results: dict[str, list[dict[str, object]]]) -> list[Table]:
    planted = Table(
        "planted", "tail", "error", "bias", "s.d.", "mean error", "coverage", "rejections", title="Estimator"
    )
    for result in results["experiments"]:
        for kind in KINDS:
            figures = [result[name][kind] for name in ("mean_standard_error", "coverage", "rejections")]  # type: ignore[index]
            planted.add_row(
                f"{result['relative_risk']}",
                f"{result['impressions_sigma']}",
                kind,
                f"{result['bias']:+.5f}",
                f"{result['standard_deviation']:.4f}",
                f"{figures[0]:.4f}",
                *(f"{100 * figure:.1f} %" for figure in figures[1:]),
            )
    peeked = Table(
        "advertisers start", "runs", "sequence", "1.96 each day", title=f"A/A runs that reject, {DAYS} looks"
    )
    for result in results["peeking"]:
        rates = (f"{100 * float(str(result[name])):.1f} %" for name in ("sequence_rejections", "fixed_rejections"))
        peeked.add_row(str(result["advertisers_start"]), str(result["runs"]), *rates)
    return [planted, peeked]


if __name__ == "__main__":
    as_command(main)
