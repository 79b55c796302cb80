"""What the planted people click among a policy's texts, and whether the reward model knows: a market run's suggestions.

    python -m benchmarks.study_suggestions .rlpf/demo/evaluation/policy/suggestions.parquet

Least squares of log planted CTR on what is known of a text without the truth, within originals: each coefficient is a
difference of log CTR among texts for one original. Errors are clustered by original (several files count as one
sample of the same originals). A coefficient of the spread says that the reward model's doubts are right. The second
table ranks what `rlpf generate` would offer (distinct, finished, no copies; at least three of an original) by reward
less so many spreads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.running import as_command
from rlpf_pipeline.contracts import SUGGESTIONS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.policy import are_copies
from rlpf_pipeline.settings import PolicySettings

MODELS = (("reward",), ("reward", "spread"), ("reward", "spread", "off topic", "finished"))
LEAST_OFFERED = 3
NONE = "–"
"""Where there is no such figure."""
SPREADS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


def main(
    suggestions: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, help="suggestions.parquet of policy evaluations.")
    ],
) -> None:
    """Print a table. Example: python -m benchmarks.study_suggestions evaluation/policy/suggestions.parquet"""
    table = Table("policy", "texts", "reward", "spread", "off topic", "finished", "R²", title="log planted CTR on")
    every = pd.concat([read(path).assign(file=str(path)) for path in suggestions], ignore_index=True)
    if every.planted_ctr.isna().any():
        raise typer.BadParameter("These texts have no planted CTR: only a simulated market has one.")
    for policy, own in every.groupby("policy", sort=False):
        for names in MODELS:
            fit = within_originals(own, names)
            cells = dict.fromkeys(names, NONE)
            if fit is not None:
                cells |= {name: f"{fit.params[name]:+.3f} ({fit.bse[name]:.3f})" for name in fit.params.index}
            shown = (cells.get(name, "") for name in MODELS[-1])
            table.add_row(policy, str(len(own)), *shown, NONE if fit is None else f"{fit.rsquared:.3f}")
    Console().print(table)
    table = Table("policy", "spreads taken off", "first text's planted CTR less the mean's, points", "rank correlation")
    for policy, own in every.groupby("policy", sort=False):
        for spreads in SPREADS:
            lift, error, correlation = ranking(own, spreads)
            offered = f"{figure(100 * lift, '+.3f')} ({figure(100 * error, '.3f')})"
            table.add_row(policy, f"{spreads:g}", offered, figure(correlation, ".3f"))
    Console().print(table)
    print(f"{NONE}: does not vary, or no original has {LEAST_OFFERED} texts to offer, as many as a ranking takes.")


def read(path: Path) -> pd.DataFrame:
    """Raises UserError where it is none of a policy evaluation."""
    try:
        return pd.read_parquet(path, columns=[column.name for column in SUGGESTIONS.columns])
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is no suggestions.parquet of a policy evaluation ({str(error).splitlines()[0]}). Name the one in "
            "evaluation/policy of a run."
        ) from error


def figure(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else NONE


def within_originals(texts: pd.DataFrame, names: tuple[str, ...]) -> Any:
    """The fit of statsmodels' OLS; all columns less their means among an original's texts in one file. Without those
    that do not vary there; None where none does."""
    import statsmodels.api as sm

    columns = pd.DataFrame(
        {
            "log_ctr": np.log(texts.planted_ctr),
            "reward": texts.reward,
            "spread": texts.reward_spread,
            "off topic": (PolicySettings().least_relevance - texts.relevance).clip(lower=0),
            "finished": texts.finished.astype(float),
        }
    )
    columns = columns - columns.groupby([texts.file, texts.ad_id]).transform("mean")
    originals = {"groups": pd.factorize(texts.ad_id)[0]}
    varying = [name for name in names if not np.allclose(columns[name], 0, atol=1e-12)]
    if not varying:
        return None
    return sm.OLS(columns.log_ctr, columns[varying]).fit(cov_type="cluster", cov_kwds=originals)


def ranking(texts: pd.DataFrame, spreads: float) -> tuple[float, float, float]:
    """Planted CTR of the first text less that of all for its original, its standard error over originals, and the mean
    of Spearman's correlation within originals."""
    offered = texts[texts.finished & ~are_copies(texts)]
    offered = offered.drop_duplicates(["file", "ad_id", "text"])
    offered = offered.assign(rank_by=offered.reward - spreads * offered.reward_spread)
    groups = [own for _, own in offered.groupby(["file", "ad_id"]) if len(own) >= LEAST_OFFERED]
    lifts = pd.Series(
        [own.planted_ctr[own.rank_by.idxmax()] - own.planted_ctr.mean() for own in groups],
        index=[own.ad_id.iloc[0] for own in groups],
    )
    by_original = lifts.groupby(level=0).mean()
    correlations = [own.rank_by.corr(own.planted_ctr, method="spearman") for own in groups]
    return float(by_original.mean()), float(by_original.sem()), float(pd.Series(correlations, dtype=float).mean())


if __name__ == "__main__":
    as_command(main)
