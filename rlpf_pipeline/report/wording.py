"""How numbers and verdicts are said in a report: one place, so that HTML, Markdown and CSV agree."""

from __future__ import annotations

from markupsafe import Markup

from rlpf_pipeline.abtest.analysis import ExperimentAnalysis
from rlpf_pipeline.abtest.figures import decimals_for, fixed, signed
from rlpf_pipeline.abtest.log_binomial import RelativeRisk
from rlpf_pipeline.abtest.robustness import RobustnessRow
from rlpf_pipeline.abtest.sequential import AnytimeInterval

Estimated = RelativeRisk | RobustnessRow
Interval = Estimated | AnytimeInterval

LIGHTS = {"pass": "Pass", "warn": "Caution", "fail": "Fail"}
FEWEST_DECIMALS = 3
"""Of a ratio; its change in percent has two fewer."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def decimals_of(ends: Interval) -> int:
    """So many that the interval's width shows two digits."""
    return decimals_for(ends.high - ends.low, FEWEST_DECIMALS)


def change(ratio: float, decimals: int = FEWEST_DECIMALS) -> str:
    """A ratio as relative change: 1.067 is +6.7 %. decimals: of the ratio."""
    return f"{signed(100 * (ratio - 1), decimals - 2)} %"


def change_interval(ends: Interval) -> str:
    return " to ".join(change(end, decimals_of(ends)) for end in (ends.low, ends.high))


def change_with_interval(risk: RelativeRisk) -> str:
    return f"{change(risk.estimate, decimals_of(risk))} ({change_interval(risk)})"


def percent(share: float, decimals: int = 1) -> str:
    return f"{100 * share:.{decimals}f} %"


def probability(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def p_equals(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def integer(value: float) -> str:
    return f"{value:,.0f}"


def estimate(found: Estimated) -> str:
    return fixed(found.estimate, decimals_of(found))


def interval(ends: Interval) -> str:
    return " to ".join(fixed(end, decimals_of(ends)) for end in (ends.low, ends.high))


def decision(analysis: ExperimentAnalysis) -> str:
    """The first sentence a reader sees."""
    headline = analysis.headline
    decimals = decimals_of(headline)
    effect = (
        f"{change(headline.estimate, decimals)} ({percent(headline.level, 0)} interval {change_interval(headline)}, "
        f"{p_equals(headline.p_value)})"
    )
    if analysis.verdict == "invalid":
        failed = ", ".join(check.name.lower() for check in analysis.validity.checks if check.light == "fail")
        return f"Do not act on this experiment: it fails a validity check ({failed}). Its estimate is {effect}."
    if analysis.verdict == "undecided":
        return (
            f"The experiment does not settle whether treatment changes the click-through rate: {effect}. "
            f"It finds {change(1 + analysis.power.minimum_detectable_effect, decimals)} or more with 80 % probability."
        )
    return f"Treatment {analysis.verdict} the click-through rate: {effect}."


def markdown_text(value: object) -> object:
    """Escape text for a Markdown cell: no markup, no HTML, no line breaks. Other values pass."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    for mark, safe in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        value = value.replace(mark, safe)
    for mark in "|`*_[]~$":
        value = value.replace(mark, f"\\{mark}")
    return Markup(" ".join(value.split()))  # noqa: S704 (escaped above)


def csv_cell(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


FILTERS = {"fixed": fixed, "percent": percent, "estimate": estimate, "interval": interval}
