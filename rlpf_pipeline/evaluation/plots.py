"""The evaluation's pictures, as Vega-Lite specifications in the report's style: they show, and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from rlpf_pipeline.evaluation.reward_model import MODELS, Band, Evaluation, Figures
from rlpf_pipeline.evaluation.shortcuts import Voices
from rlpf_pipeline.report.plots import INK, styled

MODEL, PEOPLE, OTHER = "#3b82c4", "#e0812f", "#8a8f98"
REWARD, CLICKS = "reward", "clicks"
RELIABILITY_OF = ("reward_model", "evaluation_reward_model", "tfidf")
LONGEST_NAME = 260
INTERVAL = 1.96
"""Standard errors to either side of a 95 % interval."""


def pictures(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Name → specification of every picture that the evaluation has data for. No name is that of a figure: the web UI
    shows both side by side."""
    drawn = {
        "accuracy_by_model": comparison_plot(evaluation),
        "selection_lift_by_model": lift_plot(evaluation),
        "accuracy_by_effect_and_impressions": bands_plot(evaluation),
        "reliability": reliability_plot(evaluation),
    }
    if evaluation.by_length:
        drawn["reward_by_length"] = length_plot(evaluation)
    if evaluation.by_style:
        drawn["reward_by_style"] = style_plot(evaluation)
    return drawn


def comparison_plot(evaluation: Evaluation) -> dict[str, Any]:
    """Accuracy of every model on all and on significant pairs, with 95 % intervals, up to the noise ceiling."""
    panels: list[alt.LayerChart] = []
    for title, metric, ceiling in (
        ("all pairs", "accuracy", "noise_ceiling"),
        ("significant pairs (p < .05)", "accuracy_significant", "noise_ceiling_significant"),
    ):
        rows = [
            interval_row(MODELS[name], own[metric], own.get(f"{metric}_standard_error"))
            for name, own in evaluation.models.items()
            if metric in own and name != "chance"
        ]
        lines: list[dict[str, object]] = [
            {"at": 0.5, "line": "chance"},
            {"at": evaluation.conditions.get(ceiling), "line": "noise ceiling"},
        ]
        if rows:
            panels.append(dot_panel(rows, lines, "Accuracy, " + title, ".2f", show_names=not panels))
    return styled(alt.hconcat(*panels).properties(description="Pairwise accuracy of models and baselines").to_dict())


def lift_plot(evaluation: Evaluation) -> dict[str, Any]:
    """CTR of the text that each model picks over that of one picked by chance, beside half the test and the oracle."""
    rows = [
        lift_row(MODELS[name], "selection_lift", own)
        for name, own in evaluation.models.items()
        if "selection_lift" in own and name != "chance"
    ]
    rows += [
        lift_row(title, name, evaluation.conditions)
        for title, name in (
            ("half of the test's own clicks", "half_test_lift"),
            ("oracle: true CTRs known", "oracle_lift"),
        )
        if name in evaluation.conditions
    ]
    title = "CTR of the picked text over the mean text of its ad"
    panel = dot_panel(rows, [{"at": 0.0, "line": "a text by chance"}], title, "+.0%", show_names=True)
    return styled(panel.properties(width=400, description="Selection lift with 95 % intervals").to_dict())


def reliability_plot(evaluation: Evaluation) -> dict[str, Any]:
    """Mean soft label of the side that a model favours, over the probability that the model gives it."""
    rows = [
        {"model": MODELS[name], **bin_._asdict()}
        for name in RELIABILITY_OF
        for bin_ in evaluation.reliability.get(name, [])
    ]
    highest = min(1.0, max([row["predicted"] for row in rows]) + 0.03)
    domain = [min(0.45, *(row["label"] - 0.03 for row in rows)), max(highest, *(row["label"] + 0.03 for row in rows))]
    x = alt.X(
        "predicted:Q", title="Predicted: P(favoured text is better)", axis=number_axis(), scale=scale([0.5, highest])
    )
    y = alt.Y("label:Q", title="Mean label of those pairs", axis=number_axis(), scale=scale(domain))
    color = alt.Color("model:N", title=None, sort=None, scale=alt.Scale(range=[MODEL, PEOPLE, OTHER]), legend=legend())
    lines = alt.Chart(alt.Data(values=rows)).mark_line(point=True, strokeWidth=2).encode(x=x, y=y, color=color)
    ideal = alt.Data(values=[{"at": 0.5}, {"at": highest}])
    diagonal = alt.Chart(ideal).mark_line(strokeDash=[4, 3], color=INK, opacity=0.5).encode(x="at:Q", y="at:Q")
    return styled((diagonal + lines).properties(width=380, height=300, description="Reliability diagram").to_dict())


def bands_plot(evaluation: Evaluation) -> dict[str, Any]:
    """Accuracy in quarters of the pairs by effect size and by impressions, beside each quarter's noise ceiling."""
    effects, impressions = band_rows(evaluation.by_effect, ".2g"), band_rows(evaluation.by_impressions, ",.0f")
    ends = [row[end] for row in (*effects, *impressions) for end in ("low", "high")]
    domain = [min(0.4, *ends), max(1.0, *ends)]
    panels = [
        bands_panel(effects, "Difference of the two texts, log odds", "Accuracy", domain),
        bands_panel(impressions, "Impressions of the text shown less", None, domain),
    ]
    return styled(alt.hconcat(*panels).properties(description="Accuracy by effect size and by impressions").to_dict())


def band_rows(bands: Sequence[Band], number: str) -> list[dict[str, Any]]:
    return [
        {
            **interval_row(f"{band.low:{number}} – {band.high:{number}}", band.accuracy, band.standard_error),
            "ceiling": band.ceiling,
        }
        for band in bands
    ]


def bands_panel(rows: list[dict[str, Any]], title: str, y_title: str | None, domain: Sequence[float]) -> alt.LayerChart:
    axis = alt.Axis(labelAngle=0, grid=False)
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X("name:N", sort=None, title=title, axis=axis))
    y = alt.Y("value:Q", title=y_title, scale=scale(domain), axis=number_axis())
    whiskers = base.mark_rule(color=MODEL, strokeWidth=2).encode(y=alt.Y("low:Q", title=y_title), y2="high:Q")
    points = base.mark_point(filled=True, size=70, color=MODEL, opacity=1).encode(y=y)
    ceiling = alt.Y("ceiling:Q", title=y_title)
    ceilings = base.mark_tick(color=PEOPLE, thickness=3, width=34).encode(y=ceiling)
    text = base.mark_text(dx=20, align="left", color=PEOPLE, fontSize=10).encode(y=ceiling, text=alt.value("ceiling"))
    return (even(y="at:Q") + whiskers + ceilings + text + points).properties(width=380, height=240)


def length_plot(evaluation: Evaluation) -> dict[str, Any]:
    """The longer text's chances by model and by clicks (95 % intervals), over how much longer it is."""
    rows = [row | {"ratio": own.ratio} for own in evaluation.by_length for row in voice_rows(own.voices)]
    ticks = alt.Axis(format=".2~f", values=[1, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 3, 4, 8], grid=False)
    length = alt.Scale(type="log", nice=False, padding=12)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("ratio:Q", title="Length of the longer text over the other's", axis=ticks, scale=length),
        color=voice_color(),
    )
    y_title = "P(the longer text is better)"
    whiskers = base.mark_rule(strokeWidth=1).encode(y=alt.Y("low:Q", title=y_title), y2="high:Q")
    y = alt.Y("value:Q", title=y_title, axis=number_axis(), scale=alt.Scale(zero=False))
    lines = base.mark_line(point=True, strokeWidth=2).encode(y=y)
    chart = (even(y="at:Q") + whiskers + lines).properties(width=460, height=260, description="Length")
    return styled(chart.to_dict())


def style_plot(evaluation: Evaluation) -> dict[str, Any]:
    """Chances of the text with a mark against one without, by model and by clicks (95 % intervals)."""
    rows = [
        row | {"mark": f"{own.mark} ({own.share:.0%} of texts)"}
        for own in evaluation.by_style
        for row in voice_rows(own.voices)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("mark:N", sort=None, title=None, axis=alt.Axis(labelLimit=LONGEST_NAME)),
        yOffset=alt.YOffset("name:N", sort=[REWARD, CLICKS]),
        color=voice_color(),
    )
    title = "P(the text with the mark is better than the one without)"
    x = alt.X("value:Q", title=title, axis=number_axis(), scale=alt.Scale(zero=False, padding=12))
    whiskers = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(x=x)
    chart = (even(x="at:Q") + whiskers + points).properties(width=420, height=alt.Step(14), description="Style")
    return styled(chart.to_dict())


def voice_rows(voices: Voices) -> list[dict[str, Any]]:
    return [
        interval_row(REWARD, voices.reward, None),
        interval_row(CLICKS, voices.clicks, voices.clicks_standard_error),
    ]


def even(**position: str) -> alt.Chart:
    """A dashed line where neither side is favoured."""
    data = alt.Data(values=[{"at": 0.5}])
    return alt.Chart(data).mark_rule(strokeDash=[4, 3], color=INK, opacity=0.6).encode(**position)


def dot_panel(
    rows: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]], title: str, number: str, show_names: bool
) -> alt.LayerChart:
    """A row per name: a dot and its interval, with named vertical lines where `at` is known."""
    axis = alt.Axis(labels=show_names, ticks=show_names, grid=False, labelLimit=LONGEST_NAME)
    base = alt.Chart(alt.Data(values=list(rows))).encode(y=alt.Y("name:N", sort=None, title=None, axis=axis))
    horizontal = alt.Axis(format=number, tickCount=6, labelFlush=False)
    x = alt.X("value:Q", title=title, axis=horizontal, scale=alt.Scale(zero=False, padding=12))
    whiskers = base.mark_rule(strokeWidth=2, color=MODEL).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    points = base.mark_point(filled=True, size=70, opacity=1, color=MODEL).encode(x=x)
    marked = alt.Chart(alt.Data(values=[line for line in lines if line["at"] is not None]))
    rules = marked.mark_rule(strokeDash=[4, 3], color=INK, opacity=0.6).encode(x="at:Q")
    texts = marked.mark_text(dy=-8, fontSize=10, color=INK, opacity=0.8).encode(x="at:Q", y=alt.value(0), text="line:N")
    return (rules + texts + whiskers + points).properties(width=300, height=alt.Step(26))


def voice_color() -> alt.Color:
    """Blue for what the model says, orange for what people did."""
    colors = alt.Scale(domain=[REWARD, CLICKS], range=[MODEL, PEOPLE])
    return alt.Color("name:N", title=None, scale=colors, legend=legend())


def interval_row(name: str, value: float, standard_error: float | None) -> dict[str, Any]:
    error = INTERVAL * (standard_error or 0.0)
    return {"name": name, "value": value, "low": value - error, "high": value + error}


def lift_row(title: str, name: str, figures: Figures) -> dict[str, Any]:
    value = figures[name]
    return {
        "name": title,
        "value": value,
        "low": figures.get(f"{name}_low", value),
        "high": figures.get(f"{name}_high", value),
    }


def scale(domain: Sequence[float]) -> alt.Scale:
    return alt.Scale(domain=list(domain), zero=False, nice=False)


def number_axis() -> alt.Axis:
    return alt.Axis(format=".2f", tickCount=6, labelFlush=False)


def legend() -> alt.Legend:
    return alt.Legend(orient="top", labelColor=INK, titleColor=INK, labelLimit=300)
