"""An `ExperimentAnalysis` as files: report.html, report.md, results.json, effects.csv, and the plots.

The HTML carries everything it needs and loads nothing. The same analysis gives the same bytes: nothing here knows the
time or the place. What is said stands in sections.py, how it was computed in methods.py.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rlpf_pipeline import __version__
from rlpf_pipeline.abtest.analysis import ExperimentAnalysis
from rlpf_pipeline.abtest.log_binomial import risk_from
from rlpf_pipeline.artifacts import versions
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.report import wording
from rlpf_pipeline.report.plain import plain
from rlpf_pipeline.report.plots import inline_svg, plots_of, png, standalone_svg
from rlpf_pipeline.report.sections import sections_of
from rlpf_pipeline.whole_files import written_whole

PACKAGES = ("numpy", "scipy", "pandas", "duckdb", "formulaic", "statsmodels")
STANDALONE = ("forest", "over_time", "segments")
"""Plots that are written as files too."""
FILES = ("report.html", "report.md", "results.json", "effects.csv", "forest.png", *(f"{n}.svg" for n in STANDALONE))
"""All that a report may have."""


class Truth(NamedTuple):
    """What a simulated market planted, beside the estimate."""

    relative_risk: float
    covered: bool
    """Whether the interval contains it."""
    others: dict[str, float]
    """Whatever else was planted, by name."""


def write_report(
    analysis: ExperimentAnalysis,
    folder: Path,
    *,
    title: str,
    data_digest: str,
    command: str,
    notes: Sequence[str] = (),
    planted: Mapping[str, float] | None = None,
) -> None:
    """Write the files into `folder` (made if absent), each complete or not at all.

    data_digest: fingerprint of the analysed table. command: what made the report. notes: remarks to show beside the
    analysis' own. planted: the truth of a simulation, at least `relative_risk`.
    """
    drawn = {name: inline_svg(plot) for name, plot in plots_of(analysis).items()}
    page = {
        "analysis": analysis,
        "study": risk_from(math.log(analysis.headline.estimate), analysis.validity.errors.hc1),
        "title": title,
        "decision": wording.decision(analysis),
        "lights": wording.LIGHTS,
        "sections": sections_of(analysis, (*analysis.notes, *notes)),
        "notes": [*analysis.notes, *notes],
        "truth": truth_beside(analysis, planted),
        "data_digest": data_digest,
        "command": command,
        "versions": {"rlpf_pipeline": __version__} | versions(PACKAGES),
    }
    files = {
        "report.html": render_html(page, drawn).encode(),
        "report.md": render_markdown(page).encode(),
        "results.json": results_json(page).encode(),
        "effects.csv": effects_csv(analysis).encode(),
        "forest.png": png(drawn["forest"]),
    } | {f"{name}.svg": standalone_svg(drawn[name]).encode() for name in STANDALONE if name in drawn}
    folder.mkdir(parents=True, exist_ok=True)
    for name in STANDALONE:
        if name not in drawn:
            (folder / f"{name}.svg").unlink(missing_ok=True)  # a former report's
    with ExitStack() as all_written:
        for name, content in files.items():
            all_written.enter_context(written_whole(folder / name)).write_bytes(content)


def truth_beside(analysis: ExperimentAnalysis, planted: Mapping[str, float] | None) -> Truth | None:
    if planted is None:
        return None
    if "relative_risk" not in planted:
        raise UserError(f"The planted truth has no relative_risk. It has: {', '.join(sorted(planted)) or 'nothing'}.")
    relative_risk = float(planted["relative_risk"])
    others = {name: planted[name] for name in sorted(planted) if name != "relative_risk"}
    return Truth(relative_risk, analysis.headline.low <= relative_risk <= analysis.headline.high, others)


def render_html(page: dict[str, Any], drawn: Mapping[str, str]) -> str:
    plots = {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704 (drawn by us; Vega escapes)
    light_of = {said: light for light, said in wording.LIGHTS.items()}
    return environment().get_template("report.html.j2").render(page, plots=plots, light_of=light_of)


def render_markdown(page: dict[str, Any]) -> str:
    return environment(finalize=wording.markdown_text).get_template("report.md.j2").render(page, standalone=STANDALONE)


def environment(**options: Any) -> Environment:
    jinja = Environment(
        loader=PackageLoader("rlpf_pipeline.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        **options,
    )
    jinja.filters.update(wording.FILTERS)
    return jinja


def results_json(page: dict[str, Any]) -> str:
    shown = ("title", "decision", "notes", "truth", "data_digest", "command", "versions", "analysis")
    results = {name: plain(page[name]) for name in shown}
    return json.dumps(results, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def effects_csv(analysis: ExperimentAnalysis) -> str:
    """Every effect in one table, for a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["kind", "name", "scale", "estimate", "low", "high", "p_value"])
    rows: list[tuple[object, ...]] = [
        ("model", row.model, row.scale, row.estimate, row.low, row.high, row.p_value) for row in analysis.robustness
    ]
    rows += [
        ("adoption", e.outcome, "per advertiser", e.difference, e.low, e.high, e.p_value) for e in analysis.adoption
    ]
    rows += [
        (e.segment, e.level, "relative risk", e.risk.estimate, e.risk.low, e.risk.high, e.risk.p_value)
        for e in analysis.segments.effects
    ]
    writer.writerows([wording.csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()
