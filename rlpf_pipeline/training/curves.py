"""A policy's training as pictures: its steps, and what it gained for how far it went from its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import pandas as pd

TITLES = {
    "reward": "reward: log odds to beat the original",
    "kl": "KL to imitation v2, nats per text",
    "tokens": "length, tokens",
    "distinct": "distinct samples of a prompt, share",
    "term_off_topic": "off-topic term of the reward",
    "term_copy": "copy term of the reward",
    "loss": "loss",
    "accuracy": "pairs ordered as by their clicks, share",
}


def plot_history(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draw the metrics of `TITLES` that the history has over its steps, one panel each, as an SVG file."""
    table = pd.DataFrame(history)
    panels = [
        alt.Chart(table, title=title, width=260, height=150)
        .mark_line(point=True)
        .encode(
            alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1)),
            alt.Y(f"{name}:Q", title=None, scale=alt.Scale(zero=False)),
        )
        for name, title in TITLES.items()
        if name in table
    ]
    alt.concat(*panels, columns=2).save(str(path))


def plot_curve(curve: Sequence[Mapping[str, float]], chosen: int, path: Path) -> None:
    """Draw reward and evaluation reward over the KL of each judgement (Gao et al. 2023), and what picks the policy: the
    evaluation reward less its penalties. The chosen step is marked."""
    names = {
        "reward": "reward model (optimised)",
        "evaluation_reward": "evaluation reward model (never optimised)",
        "picked_by": "evaluation reward model, less penalties (picks)",
    }
    table = pd.DataFrame(curve).assign(picked_by=lambda t: t.evaluation_reward + t.penalties).rename(columns=names)
    table = table.melt(["step", "kl"], list(names.values()), "judge", "gain").assign(chosen=lambda t: t.step == chosen)
    base = alt.Chart(table, width=420, height=240).encode(
        alt.X("kl:Q", title="KL to imitation v2, nats per text"),
        alt.Y("gain:Q", title="gain over the original, log odds", scale=alt.Scale(zero=False)),
        alt.Color("judge:N", title=None, legend=alt.Legend(labelLimit=300)),
        alt.Order("step:Q"),
    )
    marks = base.mark_point(filled=True, size=80).encode(
        alt.Shape("chosen:N", title="the policy that is kept"), alt.Tooltip(["step:Q"])
    )
    alt.layer(base.mark_line(), marks).save(str(path))
