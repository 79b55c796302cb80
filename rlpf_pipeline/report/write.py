"""An `ExperimentAnalysis` as files: report.html, report.md, results.json, forest.svg, forest.png.

The HTML carries everything it needs and loads nothing. The same analysis gives the same bytes: nothing here knows the
time or the place. Formulas and references are in the templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rlpf_pipeline import __version__
from rlpf_pipeline.abtest.analysis import ExperimentAnalysis
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.report import wording
from rlpf_pipeline.report.plots import ctr_plot, forest_plot, inline_svg, png, standalone_svg


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
    notes: Sequence[str] = (),
    planted: Mapping[str, float] | None = None,
    data_digest: str,
) -> None:
    """Write the five files into `folder` (made if absent), each complete or not at all.

    notes: remarks to show beside the analysis' own. planted: the truth of a simulation, at least `relative_risk`.
    data_digest: fingerprint of the analysed table.
    """
    truth = truth_beside(analysis, planted)
    forest = forest_plot(analysis)
    page = {
        "analysis": analysis,
        "title": title,
        "decision": wording.decision(analysis),
        "lights": wording.LIGHTS,
        "notes": [*analysis.notes, *notes],
        "truth": truth,
        "data_digest": data_digest,
        "version": __version__,
    }
    files = {
        "report.html": render_html(page, forest, ctr_plot(analysis)).encode(),
        "report.md": render_markdown(page).encode(),
        "results.json": results_json(page).encode(),
        "forest.svg": standalone_svg(forest).encode(),
        "forest.png": png(forest),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        temporary = folder / f".{name}.tmp"
        temporary.write_bytes(content)
        temporary.replace(folder / name)


def truth_beside(analysis: ExperimentAnalysis, planted: Mapping[str, float] | None) -> Truth | None:
    if planted is None:
        return None
    if "relative_risk" not in planted:
        raise UserError(f"The planted truth has no relative_risk. It has: {', '.join(sorted(planted)) or 'nothing'}.")
    relative_risk = float(planted["relative_risk"])
    others = {name: planted[name] for name in sorted(planted) if name != "relative_risk"}
    return Truth(relative_risk, analysis.headline.low <= relative_risk <= analysis.headline.high, others)


def render_html(page: dict[str, Any], forest: dict[str, Any], ctr: dict[str, Any]) -> str:
    plots = {"forest": Markup(inline_svg(forest)), "ctr": Markup(inline_svg(ctr))}  # noqa: S704 (drawn by us, from numbers)
    return environment().get_template("report.html.j2").render(page, **plots)


def render_markdown(page: dict[str, Any]) -> str:
    return environment(finalize=wording.markdown_text).get_template("report.md.j2").render(page)


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
    results = {name: plain(page[name]) for name in ("title", "decision", "notes", "truth", "data_digest", "version")}
    results["analysis"] = plain(page["analysis"])
    return json.dumps(results, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """NamedTuples as objects, all the way down."""
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value
