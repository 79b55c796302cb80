"""The curve of a PPO run as a picture: what the policy gained, and how far it went from its reference for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

TITLES = {
    "reward": "reward: log odds to beat the original",
    "kl": "KL to imitation v2, nats per text",
    "tokens": "length, tokens",
    "distinct": "distinct samples of a prompt, share",
}


def plot_history(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draw the metrics of `TITLES` over PPO steps, one panel each, as an SVG file."""
    table = pd.DataFrame(history)
    panels = [
        alt.Chart(table, title=title, width=260, height=150)
        .mark_line(point=True)
        .encode(
            alt.X("step:Q", title="PPO step", axis=alt.Axis(tickMinStep=1)),
            alt.Y(f"{name}:Q", title=None, scale=alt.Scale(zero=False)),
        )
        for name, title in TITLES.items()
    ]
    alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:])).save(str(path))
