"""The report's plots, drawn by Vega-Lite in this process (vl_convert): no browser, no network.

Specifications are plain Vega-Lite: Altair would take a second to import and another to check them. Narrow enough for a
phone: names stand above their marks, not beside them. Inline SVG takes its ink from the page (`currentColor`), so that
it is legible in light and dark; files that stand alone bring their own.
"""

from __future__ import annotations

import re
from typing import Any

import vl_convert

from rlpf_pipeline.abtest.analysis import ExperimentAnalysis
from rlpf_pipeline.abtest.arms import QUANTILES
from rlpf_pipeline.abtest.log_binomial import RelativeRisk
from rlpf_pipeline.abtest.over_time import OverTime
from rlpf_pipeline.abtest.robustness import IMPRESSIONS_SCALE
from rlpf_pipeline.contracts import ARMS
from rlpf_pipeline.report.wording import change_with_interval

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
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Specification = dict[str, Any]
NO_EFFECT: Specification = {
    "data": {"values": [{"none": 1.0}]},
    "mark": {"type": "rule", "strokeDash": [4, 3], "color": INK, "opacity": 0.6},
}
"""A layer: the dashed line at a ratio of 1."""
AXES = {
    "labelColor": INK,
    "titleColor": INK,
    "domainColor": INK,
    "tickColor": INK,
    "gridColor": INK,
    "gridOpacity": 0.12,
    "domainOpacity": 0.4,
    "tickOpacity": 0.4,
    "labelFontSize": 12,
    "titleFontSize": 12,
    "titleFontWeight": "normal",
    "labelLimit": 170,
}


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
    figures = change_with_interval(risk)
    at = {"low": near(risk.low), "ratio": near(risk.estimate), "high": near(risk.high)}
    return {"name": name, **at, "figures": figures, "colour": colour}


def near(ratio: float) -> float:
    return min(max(ratio, 1 / FARTHEST), FARTHEST)


def ratio_plot(rows: list[dict[str, Any]], description: str) -> Specification:
    order = [f"{position} {row['name']}" for position, row in enumerate(rows)]
    values = [{**row, "key": key} for row, key in zip(rows, order, strict=True)]
    scale = {"type": "log", "zero": False, "nice": False, "padding": 12}
    axis = {"format": "~g", "tickCount": 5, "labelOverlap": True}
    at = {"type": "quantitative", "scale": scale, "axis": axis}
    row = {"field": "key", "type": "nominal", "sort": order, "axis": None}
    coloured = {"y": row, "color": {"field": "colour", "type": "nominal", "scale": None}}
    text = {"type": "text", "dy": -12, "fontSize": 12, "limit": 240}

    def words(field: str, align: str, x: int) -> Specification:
        written = {"text": {"field": field, "type": "nominal"}, "color": {"value": INK}, "x": {"value": x}, "y": row}
        return layer(values, {**text, "align": align}, written)

    layers = [
        NO_EFFECT | {"encoding": {"x": {"field": "none", "type": "quantitative", "scale": scale}}},
        layer(
            values,
            {"type": "rule", "strokeWidth": 2.5},
            coloured | {"x": at | {"field": "low"}, "x2": {"field": "high"}},
        ),
        layer(
            values,
            {"type": "point", "filled": True, "size": 70, "opacity": 1},
            coloured | {"x": at | {"field": "ratio", "title": "Ratio to control, log scale"}},
        ),
        words("name", "left", 0),
        words("figures", "right", WIDTH),
    ]
    return styled({"layer": layers, "width": WIDTH, "height": {"step": ROW}, "description": description})


def over_time_plot(over_time: OverTime) -> Specification:
    """Cumulative effect with the interval of one look, inside the confidence sequence."""
    values = [
        {
            "period": effect.period,
            "ratio": near(effect.cumulative.estimate),
            "low": near(effect.cumulative.low),
            "high": near(effect.cumulative.high),
        }
        for effect in over_time.periods
    ]
    always = [
        {"period": effect.period, "low": near(effect.anytime.low), "high": near(effect.anytime.high)}
        for effect in over_time.periods
        if effect.anytime
    ]
    scale = {"type": "log", "zero": False, "nice": False, "padding": 8}
    axis = {"format": "~g", "tickCount": 6}
    ticks = {"values": [value["period"] for value in values], "format": "d", "grid": False, "labelOverlap": True}
    period = {
        "field": "period",
        "type": "quantitative",
        "title": over_time.period_name.capitalize(),
        "axis": ticks,
        "scale": {"padding": 16, "zero": False, "nice": False},
    }

    def at(field: str) -> Specification:
        title = "Relative risk, log scale"
        return {"field": field, "type": "quantitative", "scale": scale, "axis": axis, "title": title}

    def drawn(mark: Specification, **encoding: Specification) -> Specification:
        return layer(values, {"color": ACCENT, **mark}, {"x": period, **encoding})

    layers = [
        layer(
            always,
            {"type": "area", "opacity": 0.18, "color": ACCENT},
            {"x": period, "y": at("low"), "y2": {"field": "high"}},
        ),
        NO_EFFECT | {"encoding": {"y": at("none")}},
        drawn({"type": "rule", "strokeWidth": 2}, y=at("low"), y2={"field": "high"}),
        drawn({"type": "line", "opacity": 0.6}, y=at("ratio")),
        drawn({"type": "point", "filled": True, "size": 60, "opacity": 1}, y=at("ratio")),
    ]
    return styled({"layer": layers, "width": WIDTH - 40, "height": 220, "description": "Cumulative effect over time"})


def balance_plot(analysis: ExperimentAnalysis) -> Specification:
    """Standardised differences, largest first."""
    rows = sorted(analysis.validity.balance.rows, key=lambda row: -abs(row.standardised_difference))
    values = [{"column": row.column, "difference": row.standardised_difference} for row in rows]
    reach = max(0.12, *(abs(row.standardised_difference) * 1.1 for row in rows))
    at = {"type": "quantitative", "scale": {"domain": [-reach, reach], "nice": False}}
    names = {"field": "column", "type": "nominal", "sort": [row.column for row in rows], "title": None}
    difference = at | {"field": "difference", "title": "Standardised difference", "axis": {"tickCount": 5}}
    layers = [
        layer([{"at": -0.1}, {"at": 0.1}], NO_EFFECT["mark"], {"x": at | {"field": "at"}}),
        layer(
            values,
            {"type": "point", "filled": True, "color": ACCENT, "size": 60, "opacity": 1},
            {"x": difference, "y": names},
        ),
    ]
    return styled(
        {"layer": layers, "width": WIDTH - 170, "height": {"step": 20}, "description": "Balance of covariates"}
    )


def quantile_plot(analysis: ExperimentAnalysis) -> Specification:
    """CTR of advertisers at QUANTILES, both arms."""
    names = [f"{100 * quantile:.0f} %" for quantile in QUANTILES]
    values = [
        {"arm": d.arm, "ctr": value, "quantile": name}
        for d in analysis.distributions
        if d.quantity == "CTR"
        for name, value in zip(names, d.quantiles, strict=True)
    ]
    points = layer(
        values,
        {"type": "point", "filled": True, "size": 80, "opacity": 0.85},
        {
            "x": {
                "field": "ctr",
                "type": "quantitative",
                "axis": {"format": "%", "tickCount": 5},
                "title": "Click-through rate of an advertiser",
            },
            "y": {"field": "quantile", "type": "nominal", "sort": names, "title": "Quantile"},
            "color": {
                "field": "arm",
                "type": "nominal",
                "scale": {"domain": list(ARMS), "range": [GREY, ACCENT]},
                "legend": {"orient": "top", "title": None, "labelColor": INK, "labelFontSize": 12},
            },
        },
    )
    return styled(points | {"width": WIDTH - 70, "height": {"step": 28}, "description": "Quantiles of CTR by arm"})


def layer(values: list[dict[str, Any]], mark: Specification, encoding: Specification) -> Specification:
    return {"data": {"values": values}, "mark": mark, "encoding": encoding}


def styled(chart: Specification) -> Specification:
    return chart | {
        "config": {
            "background": "transparent",
            "font": "sans-serif",
            "padding": {"left": 4, "right": 6, "top": 6, "bottom": 4},
            "view": {"stroke": None},
            "axis": AXES,
        }
    }


def inline_svg(specification: Specification) -> str:
    return str(vl_convert.vegalite_to_svg(drawable(specification)))


def standalone_svg(drawn: str) -> str:
    """drawn: as `inline_svg` returns it."""
    return beginning_with(STANDALONE_STYLE, drawn) + "\n"


def png(drawn: str) -> bytes:
    """On white, with dark ink, at twice the size. drawn: as `inline_svg` returns it."""
    white = '<rect width="100%" height="100%" fill="white"/>'
    return bytes(vl_convert.svg_to_png(beginning_with(white, drawn), scale=2))


def beginning_with(element: str, drawn: str) -> str:
    opening, rest = drawn.split(">", 1)
    return f"{opening}>{element}{rest}"


def drawable(value: Any) -> Any:
    """The value with U+FFFD for characters that XML 1.0 forbids: on them vl_convert ends the process."""
    if isinstance(value, str):
        return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {name: drawable(part) for name, part in value.items()}
    return [drawable(part) for part in value] if isinstance(value, list) else value
