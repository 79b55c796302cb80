"""What an evaluation of reward models leaves behind: pictures, a table in Markdown, every figure as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from rlpf_pipeline.evaluation.plots import pictures
from rlpf_pipeline.evaluation.reward_model import MODELS, Evaluation, Figures
from rlpf_pipeline.report.plain import plain
from rlpf_pipeline.report.plots import inline_svg, standalone_svg

SHOWN = (
    ("accuracy", "accuracy", ".3f"),
    ("of the ceiling", "ceiling_closed", ".0%"),
    ("significant pairs", "accuracy_significant", ".3f"),
    ("equal length", "accuracy_length_matched", ".3f"),
    ("NLL", "negative_log_likelihood", ".4f"),
    ("ECE", "calibration_error", ".3f"),
    ("top-1", "top1", ".3f"),
    ("CTR lift of the pick", "selection_lift", "+.1%"),
    ("correlation with length", "length_correlation", "+.2f"),
    ("told by shortcuts", "explained_by_shortcuts", ".0%"),
)


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write comparison.md, figures.json and an SVG file per picture into `folder`."""
    (folder / "comparison.md").write_text(comparison(evaluation), encoding="utf-8")
    (folder / "figures.json").write_text(json.dumps(plain(evaluation), indent=2, allow_nan=False) + "\n")
    for name, picture in pictures(evaluation).items():
        (folder / f"{name}.svg").write_text(standalone_svg(inline_svg(picture)), encoding="utf-8")


def comparison(evaluation: Evaluation) -> str:
    """The table of all models, and below it what anyone could reach, in Markdown."""
    reach = evaluation.conditions
    rows = [
        [MODELS[name], *(shown(own, figure, form) for _, figure, form in SHOWN), gain_of(evaluation, name)]
        for name, own in evaluation.models.items()
    ]
    tested = MODELS[next(iter(evaluation.models))]
    header = ["", *(title for title, _, _ in SHOWN), f"gain of the {tested}"]
    table = "\n".join(map(table_row, [header, ["---"] * len(header), *rows]))
    counts = {name: f"{value:,.0f}" for name, value in reach.items()}
    lines = [
        f"{counts['ads']} ads in {counts['clusters']} clusters, {counts['texts']} texts, {counts['pairs']} pairs, "
        f"{counts['pairs_significant']} of them significant (p < .05), {counts['pairs_length_matched']} of texts of "
        "equal length (within 10 %). ± is a standard error clustered by clusters of ads; brackets are 95 % intervals.",
        f"Noise ceiling {shown(reach, 'noise_ceiling', '.3f')}, on significant pairs "
        f"{shown(reach, 'noise_ceiling_significant', '.3f')}, of top-1 {shown(reach, 'top1_ceiling', '.3f')}. CTR lift "
        f"of an oracle that knows the true CTRs: {shown(reach, 'oracle_lift', '+.1%')}; of half of the test's own "
        f"clicks: {shown(reach, 'half_test_lift', '+.1%')}.",
    ]
    return "\n\n".join([table, *lines]) + "\n"


def shown(figures: Figures, name: str, form: str) -> str:
    """A figure with what is known of its uncertainty; a dash where it could not be measured."""
    if name not in figures:
        return "–"
    text = f"{figures[name]:{form}}"
    if f"{name}_standard_error" in figures:
        return f"{text} ± {figures[f'{name}_standard_error']:.3f}"
    if f"{name}_low" in figures:
        return f"{text} [{figures[f'{name}_low']:{form}}, {figures[f'{name}_high']:{form}}]"
    return text


def gain_of(evaluation: Evaluation, name: str) -> str:
    if name not in evaluation.gains:
        return ""
    gain, error = evaluation.gains[name]
    return f"{gain:+.3f}" + ("" if error is None else f" ± {error:.3f}")


def table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
