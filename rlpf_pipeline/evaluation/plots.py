"""The evaluation's pictures, as Vega-Lite specifications in the report's style: each returns one, and computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from rlpf_pipeline.evaluation.pair_metrics import ReliabilityBin
from rlpf_pipeline.evaluation.reward_model import Band, Figures
from rlpf_pipeline.evaluation.shortcuts import Effect, LengthBin
from rlpf_pipeline.report.plots import INK, styled

MODEL, PEOPLE, OTHER = "#3b82c4", "#e0812f", "#8a8f98"
INTERVAL = 1.96
"""Standard errors to either side of a 95 % interval."""


def comparison_plot(figures: Mapping[str, Figures], conditions: Figures, titles: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy of every model on all and on significant pairs, with 95 % intervals, up to the noise ceiling."""
    panels = []
    for title, metric, ceiling in (
        ("all pairs", "accuracy", "noise_ceiling"),
        ("significant pairs (p < .05)", "accuracy_significant", "noise_ceiling_significant"),
    ):
        rows = [
            interval_row(titles[name], own[metric], own.get(f"{metric}_standard_error"))
            for name, own in figures.items()
            if metric in own
        ]
        if rows:
            lines = [{"at": 0.5, "line": "chance"}]
            lines += [{"at": conditions[ceiling], "line": "noise ceiling"}] if ceiling in conditions else []
            names = list(titles.values()) if not panels else None
            panels.append(dot_panel(rows, lines, title, "Accuracy", ".2f", names, list(titles.values())))
    return styled(alt.hconcat(*panels).properties(description="Pairwise accuracy of models and baselines"))


def lift_plot(figures: Mapping[str, Figures], conditions: Figures, titles: Mapping[str, str]) -> dict[str, Any]:
    """CTR of the text that each model picks, beside that of a text picked by chance, of half the test, of the oracle."""
    found = {titles[name]: lift_of("selection_lift", own) for name, own in figures.items() if "selection_lift" in own}
    found["the test, half of its traffic"] = lift_of("half_test_lift", conditions)
    found["oracle: true CTRs known"] = lift_of("oracle_lift", conditions)
    rows = [{"name": name, **row} for name, row in found.items() if row]
    lines = [{"at": 0.0, "line": "a text by chance"}]
    order = [row["name"] for row in rows]
    panel = dot_panel(rows, lines, "", "CTR of the picked text over the mean text of its ad", "+.0%", order, order)
    return styled(panel.properties(description="Selection lift with 95 % intervals"))


def reliability_plot(bins: Mapping[str, Sequence[ReliabilityBin]], titles: Mapping[str, str]) -> dict[str, Any]:
    """Mean soft label of the side that a model favours, over the probability that the model gives it."""
    rows = [{"model": titles[name], **bin_._asdict()} for name, own in bins.items() for bin_ in own]
    highest = max([1.0 if row["predicted"] > 0.9 else row["predicted"] + 0.05 for row in rows])
    domain = [min(0.5, *(row["label"] - 0.02 for row in rows)), highest]
    x = alt.X("predicted:Q", title="Predicted: P(favoured text is better)", axis=number_axis(), scale=scale([0.5, highest]))
    y = alt.Y("label:Q", title="Mean label of those pairs", axis=number_axis(), scale=scale(domain))
    color = alt.Color("model:N", title=None, scale=alt.Scale(range=[MODEL, PEOPLE, OTHER]), legend=legend())
    base = alt.Chart(alt.Data(values=rows))
    lines = base.mark_line(strokeWidth=1.5, opacity=0.7).encode(x=x, y=y, color=color)
    size = alt.Size("pairs:Q", title="pairs", scale=alt.Scale(range=[30, 320]), legend=legend())
    points = base.mark_point(filled=True, opacity=0.9).encode(x=x, y=y, color=color, size=size)
    ideal = alt.Data(values=[{"at": 0.5}, {"at": highest}])
    diagonal = alt.Chart(ideal).mark_line(strokeDash=[4, 3], color=INK, opacity=0.5).encode(x="at:Q", y="at:Q")
    return styled((diagonal + lines + points).properties(width=340, height=300, description="Reliability diagram"))


def bands_plot(by_effect: Sequence[Band], by_impressions: Sequence[Band]) -> dict[str, Any]:
    """Accuracy in quarters of the pairs by effect size and by impressions, beside each quarter's noise ceiling."""
    panels = []
    for title, bands, label in (
        ("Difference of the texts, log odds", by_effect, lambda band: f"{band.low:.2f} – {band.high:.2f}"),
        ("Impressions of the smaller text", by_impressions, lambda band: f"{band.low:,.0f} – {band.high:,.0f}"),
    ):
        rows = [
            {**interval_row(label(band), band.accuracy, band.standard_error), "ceiling": band.ceiling} for band in bands
        ]
        base = alt.Chart(alt.Data(values=rows)).encode(
            x=alt.X("name:N", sort=[row["name"] for row in rows], title=title, axis=alt.Axis(labelAngle=-20, grid=False))
        )
        y = alt.Y("value:Q", title="Accuracy" if not panels else None, scale=scale([0.4, 1.0]), axis=number_axis())
        whiskers = base.mark_rule(color=MODEL, strokeWidth=2).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
        points = base.mark_point(filled=True, size=70, color=MODEL, opacity=1).encode(y=y)
        ceilings = base.mark_tick(color=PEOPLE, thickness=3, width=34).encode(y=alt.Y("ceiling:Q", title=None))
        ceiling_text = base.mark_text(dy=-9, color=PEOPLE, fontSize=10).encode(
            y=alt.Y("ceiling:Q", title=None), text=alt.value("ceiling")
        )
        panels.append((chance_line() + whiskers + ceilings + ceiling_text + points).properties(width=260, height=240))
    return styled(alt.hconcat(*panels).properties(description="Accuracy by effect size and by impressions"))


def length_plot(curve: Sequence[LengthBin]) -> dict[str, Any]:
    """Reward over a text's length relative to its ad, beside what clicks say (95 % intervals)."""
    rows = []
    for own in curve:
        error = INTERVAL * own.clicks_standard_error
        rows.append({"length": own.relative_length, "value": own.reward, "what": REWARD, "low": None, "high": None})
        limits = {"low": own.clicks - error, "high": own.clicks + error}
        rows.append({"length": own.relative_length, "value": own.clicks, "what": CLICKS} | limits)
    x = alt.X("length:Q", title="Length of the text over its ad's mean", axis=number_axis(), scale=alt.Scale(type="log", nice=False, padding=12))
    return styled(
        two_voices(alt.Chart(alt.Data(values=rows)).encode(x=x), alt.Y("value:Q", title="Above the ad's mean, log odds"))
        .properties(width=420, height=260, description="Reward and clicks over length")
    )


def style_plot(effects: Sequence[Effect]) -> dict[str, Any]:
    """What a mark of style is worth to the model, beside what it was worth to people (95 % intervals)."""
    rows = []
    for own in effects:
        feature = f"{own.feature} ({own.share:.0%})"
        rows.append({"feature": feature, **interval_row(REWARD, own.reward, None)})
        rows.append({"feature": feature, **interval_row(CLICKS, own.clicks, own.clicks_standard_error)})
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("feature:N", sort=None, title=None),
        yOffset=alt.YOffset("name:N", sort=[REWARD, CLICKS]),
        color=voice_color("name:N"),
    )
    x = alt.X("value:Q", title="Texts with the mark above those without, log odds", axis=alt.Axis(format="+.2f"))
    whiskers = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=None), x2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(x=x)
    zero = alt.Chart(alt.Data(values=[{"at": 0.0}])).mark_rule(color=INK, opacity=0.5).encode(x="at:Q")
    return styled((zero + whiskers + points).properties(width=420, height=alt.Step(14), description="Marks of style"))


REWARD, CLICKS = "reward", "clicks"


def two_voices(base: alt.Chart, y: alt.Y) -> alt.LayerChart:
    color = voice_color("what:N")
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=None), y2="high:Q", color=color)
    lines = base.mark_line(point=True, strokeWidth=2).encode(y=y, color=color)
    return band.transform_filter("datum.low != null") + lines


def voice_color(field: str) -> alt.Color:
    return alt.Color(
        field, title=None, scale=alt.Scale(domain=[REWARD, CLICKS], range=[MODEL, PEOPLE]), legend=legend()
    )


def dot_panel(
    rows: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    title: str,
    axis_title: str,
    axis_format: str,
    labels: Sequence[str] | None,
    order: Sequence[str],
) -> alt.LayerChart:
    """A row per name: a dot and its interval, with named vertical lines; `labels` None hides the names."""
    axis = alt.Axis() if labels else alt.Axis(labels=False, ticks=False)
    base = alt.Chart(alt.Data(values=list(rows))).encode(y=alt.Y("name:N", sort=list(order), title=None, axis=axis))
    horizontal = alt.Axis(format=axis_format, tickCount=6)
    x = alt.X("value:Q", title=axis_title, axis=horizontal, scale=alt.Scale(zero=False))
    whiskers = base.mark_rule(strokeWidth=2, color=MODEL).encode(x=alt.X("low:Q", title=axis_title), x2="high:Q")
    points = base.mark_point(filled=True, size=70, opacity=1, color=MODEL).encode(x=x)
    marked = alt.Chart(alt.Data(values=list(lines)))
    rules = marked.mark_rule(strokeDash=[4, 3], color=INK, opacity=0.6).encode(x="at:Q")
    texts = marked.mark_text(dy=-8, fontSize=10, color=INK, opacity=0.8).encode(x="at:Q", y=alt.value(0), text="line:N")
    chart = rules + texts + whiskers + points
    return chart.properties(width=300, height=alt.Step(26), title=alt.Title(title, color=INK, fontWeight="normal", fontSize=12, dy=-10))


def interval_row(name: str, value: float, standard_error: float | None) -> dict[str, Any]:
    error = INTERVAL * (standard_error or 0.0)
    return {"name": name, "value": value, "low": value - error, "high": value + error}


def lift_of(name: str, figures: Figures) -> dict[str, float]:
    if name not in figures:
        return {}
    value = figures[name]
    return {"value": value, "low": figures.get(f"{name}_low", value), "high": figures.get(f"{name}_high", value)}


def chance_line() -> alt.Chart:
    return alt.Chart(alt.Data(values=[{"at": 0.5}])).mark_rule(strokeDash=[4, 3], color=INK, opacity=0.6).encode(y="at:Q")


def scale(domain: Sequence[float]) -> alt.Scale:
    return alt.Scale(domain=list(domain), zero=False, nice=False, clamp=False)


def number_axis() -> alt.Axis:
    return alt.Axis(format=".2f", tickCount=6)


def legend() -> alt.Legend:
    return alt.Legend(orient="top", labelColor=INK, titleColor=INK, labelLimit=300)
