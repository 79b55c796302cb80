"""The report's two plots, drawn by Vega-Lite in this process (vl_convert): no browser, no network.

Inline SVG takes its ink from the page (`currentColor`), so that it is legible in light and dark; files that stand alone
bring their own.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import vl_convert

from rlpf_pipeline.abtest.analysis import ExperimentAnalysis
from rlpf_pipeline.report.wording import change

INK = "currentColor"
ACCENT = {"clicks": "#3b82c4", "impressions": "#8a8f98"}
STANDALONE_STYLE = (
    "<style>svg{color:#1c2430;background:#ffffff}"
    "@media (prefers-color-scheme:dark){svg{color:#e6e9ee;background:#14181f}}</style>"
)


def forest_plot(analysis: ExperimentAnalysis) -> dict[str, Any]:
    """Vega-Lite specification: every model's effect as a ratio to control, with its interval."""
    rows = [
        {
            "model": row.model,
            "ratio": row.ratio.estimate,
            "low": row.ratio.low,
            "high": row.ratio.high,
            "label": change(row.ratio.estimate),
            "outcome": "impressions" if "impressions per" in row.scale else "clicks",
        }
        for row in analysis.robustness
        if row.ratio is not None
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("model:N", sort=[row["model"] for row in rows], title=None),
        color=alt.Color("outcome:N", scale=alt.Scale(domain=list(ACCENT), range=list(ACCENT.values())), legend=None),
    )
    scale = alt.Scale(type="log", zero=False, nice=False, padding=12)
    axis = alt.Axis(format=".2f", tickCount=6)
    ratio = alt.X("ratio:Q", scale=scale, axis=axis, title="Ratio to control (log scale); bars are 95 % intervals")
    whiskers = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q")
    points = base.mark_point(filled=True, size=70, opacity=1).encode(x=ratio)
    labels = base.mark_text(dy=-9, fontSize=11, color=INK).encode(x=ratio, text="label:N", color=alt.value(INK))
    none = alt.Chart(alt.Data(values=[{"none": 1.0}])).mark_rule(strokeDash=[4, 3], color=INK, opacity=0.6)
    chart = alt.layer(none.encode(x=alt.X("none:Q", scale=scale)), whiskers, points, labels)
    return styled(chart.properties(width=440, height=alt.Step(34), description="Forest plot of the robustness table"))


def ctr_plot(analysis: ExperimentAnalysis) -> dict[str, Any]:
    """Vega-Lite specification: click-through rate by arm, from zero."""
    rows = [{"arm": arm.arm, "ctr": arm.ctr, "label": f"{100 * arm.ctr:.2f} %"} for arm in analysis.arms]
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("arm:N", title=None))
    ctr = alt.X("ctr:Q", axis=alt.Axis(format=".1%", tickCount=5), title="Clicks per impression")
    bars = base.mark_bar(height=18).encode(
        x=ctr, color=alt.Color("arm:N", legend=None, scale=alt.Scale(range=["#8a8f98", "#3b82c4"]))
    )
    labels = base.mark_text(align="left", dx=5, fontSize=11, color=INK).encode(x=ctr, text="label:N")
    return styled((bars + labels).properties(width=400, height=alt.Step(30), description="Click-through rate by arm"))


def styled(chart: Any) -> dict[str, Any]:
    specification: dict[str, Any] = (
        chart.configure(
            background="transparent", font="sans-serif", padding={"left": 4, "right": 28, "top": 8, "bottom": 4}
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
            labelLimit=220,
        )
        .to_dict()
    )
    return specification


def inline_svg(specification: dict[str, Any]) -> str:
    return str(vl_convert.vegalite_to_svg(specification))


def standalone_svg(specification: dict[str, Any]) -> str:
    opening, rest = inline_svg(specification).split(">", 1)
    return f"{opening}>{STANDALONE_STYLE}{rest}\n"


def png(specification: dict[str, Any]) -> bytes:
    """On white, with dark ink, at twice the size."""
    return bytes(vl_convert.vegalite_to_png({**specification, "background": "white"}, scale=2))
