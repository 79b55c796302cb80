"""The report's plots, drawn by Vega-Lite in this process (vl_convert): no browser, no network.

Narrow enough for a phone: names stand above their marks, not beside them. Inline SVG takes its ink from the page
(`currentColor`), so that it is legible in light and dark; files that stand alone bring their own.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import vl_convert

from rlpf_pipeline.abtest.analysis import ExperimentAnalysis
from rlpf_pipeline.abtest.arms import QUANTILES
from rlpf_pipeline.abtest.log_binomial import RelativeRisk
from rlpf_pipeline.abtest.over_time import OverTime
from rlpf_pipeline.abtest.robustness import IMPRESSIONS_SCALE
from rlpf_pipeline.report.wording import change, change_with_interval

INK = "currentColor"
ACCENT, GREY = "#3b82c4", "#8a8f98"
WIDTH = 400
ROW = 40
FARTHEST = 20.0
"""Ratios are drawn between a twentieth and twenty."""
STANDALONE_STYLE = (
    "<style>svg{color:#1c2430;background:#ffffff}"
    "@media (prefers-color-scheme:dark){svg{color:#e6e9ee;background:#14181f}}</style>"
)
Specification = dict[str, Any]


def plots_of(analysis: ExperimentAnalysis) -> dict[str, Specification]:
    """Vega-Lite specifications by name; those that the analysis has data for."""
    plots = {"forest": forest_plot(analysis), "quantiles": quantile_plot(analysis)}
    if analysis.validity.balance.rows:
        plots["balance"] = balance_plot(analysis)
    if analysis.segments.effects:
        plots["segments"] = segment_plot(analysis)
    if analysis.over_time:
        plots["over_time"] = over_time_plot(analysis.over_time)
    return plots


def forest_plot(analysis: ExperimentAnalysis) -> Specification:
    """Every model's effect as a ratio to control, with its interval."""
    rows = [
        interval_row(row.model, row.ratio, GREY if row.scale == IMPRESSIONS_SCALE else ACCENT)
        for row in analysis.robustness
        if row.ratio is not None
    ]
    return ratio_plot(rows, "Forest plot of the robustness table")


def segment_plot(analysis: ExperimentAnalysis) -> Specification:
    effects = analysis.segments.effects
    return ratio_plot(
        [interval_row(f"{e.segment.replace('_', ' ')}: {e.level}", e.risk, ACCENT) for e in effects],
        "Effect by segment",
    )


def interval_row(name: str, risk: RelativeRisk, colour: str) -> dict[str, Any]:
    low, estimate, high = (min(max(v, 1 / FARTHEST), FARTHEST) for v in (risk.low, risk.estimate, risk.high))
    figures = change_with_interval(risk)
    return {"name": name, "low": low, "ratio": estimate, "high": high, "figures": figures, "colour": colour}


def ratio_plot(rows: list[dict[str, Any]], description: str) -> Specification:
    order = [f"{position} {row['name']}" for position, row in enumerate(rows)]
    values = [{**row, "key": key} for row, key in zip(rows, order, strict=True)]
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("key:N", sort=order, axis=None), color=alt.Color("colour:N", scale=None)
    )
    scale = alt.Scale(type="log", zero=False, nice=False, padding=12)
    axis = alt.Axis(format=".3~g", tickCount=5, labelOverlap=True)
    ratio = alt.X("ratio:Q", scale=scale, axis=axis, title="Ratio to control, log scale")
    none = alt.Chart(alt.Data(values=[{"none": 1.0}])).mark_rule(strokeDash=[4, 3], color=INK, opacity=0.6)
    text = {"dy": -12, "fontSize": 12, "limit": 210}
    left = base.mark_text(align="left", **text).encode(x=alt.value(0), text="name:N", color=alt.value(INK))
    right = base.mark_text(align="right", **text).encode(x=alt.value(WIDTH), text="figures:N", color=alt.value(INK))
    chart = alt.layer(
        none.encode(x=alt.X("none:Q", scale=scale)),
        base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=ratio),
        left,
        right,
    )
    return styled(chart.properties(width=WIDTH, height=alt.Step(ROW), description=description))


def over_time_plot(over_time: OverTime) -> Specification:
    """Cumulative effect with the interval of one look, inside the confidence sequence."""
    values = [
        {
            "period": effect.period,
            "ratio": effect.cumulative.estimate,
            "low": max(effect.cumulative.low, 1 / FARTHEST),
            "high": min(effect.cumulative.high, FARTHEST),
            "always_low": max(effect.anytime.low, 1 / FARTHEST),
            "always_high": min(effect.anytime.high, FARTHEST),
            "label": change(effect.cumulative.estimate),
        }
        for effect in over_time.periods
    ]
    scale = alt.Scale(type="log", zero=False, nice=False, padding=8)
    axis = alt.Axis(format=".3~g", tickCount=6)
    ticks = alt.Axis(values=[value["period"] for value in values], format="d", grid=False, labelOverlap=True)
    period = alt.X(
        "period:Q",
        title=over_time.period_name.capitalize(),
        axis=ticks,
        scale=alt.Scale(padding=16, zero=False, nice=False),
    )
    base = alt.Chart(alt.Data(values=values)).encode(x=period)

    def at(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=scale, axis=axis, title="Relative risk, log scale")

    none = alt.Chart(alt.Data(values=[{"none": 1.0}])).mark_rule(strokeDash=[4, 3], color=INK, opacity=0.6)
    chart = alt.layer(
        base.mark_area(color=ACCENT, opacity=0.18).encode(y=at("always_low"), y2="always_high:Q"),
        none.encode(y=at("none")),
        base.mark_rule(color=ACCENT, strokeWidth=2).encode(y=at("low"), y2="high:Q"),
        base.mark_line(color=ACCENT, opacity=0.6).encode(y=at("ratio")),
        base.mark_point(filled=True, color=ACCENT, size=60, opacity=1).encode(y=at("ratio")),
    )
    return styled(chart.properties(width=WIDTH - 40, height=220, description="Cumulative effect over time"))


def balance_plot(analysis: ExperimentAnalysis) -> Specification:
    """Standardised differences, largest first."""
    rows = sorted(analysis.validity.balance.rows, key=lambda row: -abs(row.standardised_difference))
    values = [{"column": row.column, "difference": row.standardised_difference} for row in rows]
    reach = max(0.12, *(abs(row.standardised_difference) * 1.1 for row in rows))
    scale = alt.Scale(domain=[-reach, reach], nice=False)
    lines = alt.Chart(alt.Data(values=[{"at": at} for at in (-0.1, 0.1)]))
    names = alt.Y("column:N", sort=[row.column for row in rows], title=None)
    points = alt.Chart(alt.Data(values=values)).mark_point(filled=True, color=ACCENT, size=60, opacity=1)
    chart = alt.layer(
        lines.mark_rule(strokeDash=[4, 3], color=INK, opacity=0.6).encode(x=alt.X("at:Q", scale=scale)),
        points.encode(
            y=names, x=alt.X("difference:Q", scale=scale, title="Standardised difference", axis=alt.Axis(tickCount=5))
        ),
    )
    return styled(chart.properties(width=WIDTH - 170, height=alt.Step(20), description="Balance of covariates"))


def quantile_plot(analysis: ExperimentAnalysis) -> Specification:
    """CTR of advertisers at QUANTILES, both arms."""
    values = [
        {"arm": d.arm, "ctr": value, "quantile": f"{100 * quantile:.0f} %"}
        for d in analysis.distributions
        if d.quantity == "CTR"
        for quantile, value in zip(QUANTILES, d.quantiles, strict=True)
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("quantile:N", sort=[f"{100 * q:.0f} %" for q in QUANTILES], title="Quantile")
    )
    arms = alt.Color(
        "arm:N",
        scale=alt.Scale(domain=["control", "treatment"], range=[GREY, ACCENT]),
        legend=alt.Legend(orient="top", title=None, labelColor=INK, labelFontSize=12),
    )
    ctr = alt.X("ctr:Q", axis=alt.Axis(format=".1%", tickCount=5), title="Click-through rate of an advertiser")
    points = base.mark_point(filled=True, size=80, opacity=0.85).encode(x=ctr, color=arms)
    return styled(points.properties(width=WIDTH - 70, height=alt.Step(28), description="Quantiles of CTR by arm"))


def styled(chart: Any) -> Specification:
    specification: Specification = (
        chart.configure(
            background="transparent", font="sans-serif", padding={"left": 4, "right": 6, "top": 6, "bottom": 4}
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=INK,
            titleColor=INK,
            domainColor=INK,
            tickColor=INK,
            gridColor=INK,
            gridOpacity=0.12,
            domainOpacity=0.4,
            tickOpacity=0.4,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            labelLimit=170,
        )
        .to_dict()
    )
    return specification


def inline_svg(specification: Specification) -> str:
    return str(vl_convert.vegalite_to_svg(specification))


def standalone_svg(specification: Specification) -> str:
    opening, rest = inline_svg(specification).split(">", 1)
    return f"{opening}>{STANDALONE_STYLE}{rest}\n"


def png(specification: Specification) -> bytes:
    """On white, with dark ink, at twice the size."""
    return bytes(vl_convert.vegalite_to_png({**specification, "background": "white"}, scale=2))
