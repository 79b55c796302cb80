"""How accuracy grows with data: the reward model and the baselines on nested parts of the train split.

    python -m benchmarks.learning_curve --profile upworthy --output learning_curve

Needs the profile's snapshot (`rlpf pairs`). Parts are whole clusters of ads, each part inside the next. Everything is
measured on the evaluation split: the train split and it share no cluster, and the test split stays unseen, so that what
one concludes from the curve (more data, another setting) is not tuned on it. Pairs of the validation split are counted:
all models learn from it too once it has chosen their penalty, but for a reward model that keeps an epoch of adapters.
Writes learning_curve.json and .svg.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import altair as alt
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.running import as_command, write_results
from rlpf_pipeline.evaluation.baselines import minilm_logistic, tfidf_logistic
from rlpf_pipeline.evaluation.reward_model import MODELS, conditions, evaluate
from rlpf_pipeline.evaluation.split import Scorer, Split, read_decided_split, read_split
from rlpf_pipeline.models.frozen_layers import StateFile
from rlpf_pipeline.models.reward_model import new_reward_model
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.report.plots import INK, inline_svg, standalone_svg, styled
from rlpf_pipeline.settings import Settings
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.reward_trainer import train_reward_model
from rlpf_pipeline.training.snapshot import read_ads
from rlpf_pipeline.whole_files import write_atomically

SHOWN = ("accuracy", "accuracy_standard_error", "accuracy_significant", "negative_log_likelihood", "selection_lift")


def main(
    profile: Annotated[str, typer.Option(help="Whose snapshot and settings are used.")] = "upworthy",
    fraction: Annotated[
        list[float] | None, typer.Option(min=0, max=1, help="Share of the train clusters; repeat for several.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Of order of clusters and of training; repeat.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs at most.", show_default="the profile's")] = None,
    output: Annotated[Path, typer.Option(help="Folder of learning_curve.json and learning_curve.svg.")] = Path(
        "learning_curve"
    ),
) -> None:
    """Train on parts of the data and print a table. Example: python -m benchmarks.learning_curve --fraction 0.5"""
    settings = load_settings(profile)
    if epochs:
        settings = settings.model_copy(update={"reward": settings.reward.model_copy(update={"epochs": epochs})})
    snapshot = settings.home / "snapshots" / "preferences"
    if not snapshot.is_dir():
        raise typer.BadParameter(f"There is no snapshot {snapshot}. Make it: rlpf pairs --profile {profile}")
    judged, validation, train = (
        read_decided_split(snapshot, "evaluation"),
        read_split(snapshot, "validation"),
        read_split(snapshot, "train"),
    )
    rows: list[dict[str, Any]] = []
    for own_seed in seed or [settings.seed]:
        order = np.random.default_rng(own_seed).permutation(np.unique(train.texts["cluster"]))
        for share in sorted(fraction or [0.125, 0.25, 0.5, 1.0]):
            chosen = order[: max(1, round(share * len(order)))]
            part = train.only(set(train.texts["ad_id"][np.isin(train.texts["cluster"], chosen)]))
            for name, build in {
                "reward_model": lambda: trained(settings, snapshot, part, own_seed),  # noqa: B023 (called at once)
                "minilm": lambda: minilm_logistic(part, validation, own_seed),  # noqa: B023
                "tfidf": lambda: tfidf_logistic(part, validation, own_seed),  # noqa: B023
            }.items():
                start = time.perf_counter()
                figures = evaluate(judged, judged.score(build()).mean(axis=1))
                pairs = len(part.pairs) + len(validation.pairs)
                rows.append(
                    {"model": name, "seed": own_seed, "pairs": pairs, "seconds": time.perf_counter() - start}
                    | {figure: figures[figure] for figure in SHOWN if figure in figures}
                )
                print(rows[-1], flush=True)
    output.mkdir(parents=True, exist_ok=True)
    recipe = settings.reward.model_dump(mode="json")
    write_results(output / "learning_curve.json", settings=recipe, conditions=conditions(judged), rows=rows)
    write_atomically(output / "learning_curve.svg", standalone_svg(inline_svg(curve(rows))))
    Console().print(table_of(rows))


def trained(settings: Settings, snapshot: Path, part: Split, seed: int) -> Scorer:
    """The reward model as `training.jobs.reward` makes it, on the ads of `part`."""
    wanted = set(part.texts["ad_id"])
    ads = [ad for ad in read_ads(snapshot, "train") if ad.ad_id in wanted]
    model = new_reward_model(settings.base, settings.reward, settings.reward.lora, "reward_model", settings.cache)
    with TemporaryDirectory() as scratch, StateFile(Path(scratch) / "states", int(20e9)) as states:
        validation = read_ads(snapshot, "validation")
        train_reward_model(model, ads, settings.reward, seed, Reporter("learning curve"), states, validation)
    return model


def curve(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy over pairs on a log axis: a line through the mean of the seeds, a dot for each."""
    base = alt.Chart(alt.Data(values=[row | {"title": MODELS[row["model"]]} for row in rows])).encode(
        x=alt.X("pairs:Q", title="Pairs learned from", scale=alt.Scale(type="log", nice=False, padding=12)),
        color=alt.Color(
            "title:N",
            title=None,
            sort=None,
            scale=alt.Scale(range=["#3b82c4", "#e0812f", "#8a8f98"]),
            legend=alt.Legend(orient="top", labelColor=INK, labelLimit=300),
        ),
    )
    y = alt.Y("accuracy:Q", title="Accuracy, all pairs", scale=alt.Scale(zero=False), axis=alt.Axis(format=".3~f"))
    lines = base.mark_line(strokeWidth=2).encode(y=alt.Y("mean(accuracy):Q", title="Accuracy, all pairs"))
    return styled(
        (lines + base.mark_point(filled=True, size=50).encode(y=y)).properties(width=420, height=260).to_dict()
    )


def table_of(rows: list[dict[str, Any]]) -> Table:
    table = Table("model", "seed", "pairs", "accuracy", "significant", "NLL", "lift", "seconds")
    for row in rows:
        accuracy, error, significant, likelihood, lift = (
            f"{row[figure]:{form}}" if figure in row else "–"
            for figure, form in zip(SHOWN, (".3f", ".3f", ".3f", ".4f", "+.1%"), strict=True)
        )
        own = (row["model"], str(row["seed"]), f"{row['pairs']:,}", f"{accuracy} ± {error}")
        table.add_row(*own, significant, likelihood, lift, f"{row['seconds']:.0f}")
    return table


if __name__ == "__main__":
    as_command(main)
