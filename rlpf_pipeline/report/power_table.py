"""A power curve as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from rlpf_pipeline.abtest.figures import fixed
from rlpf_pipeline.abtest.power import Plan
from rlpf_pipeline.report.wording import change, integer, percent


def power_table(plan: Plan) -> Table:
    """One column per number of advertisers, one row per true effect."""
    sizes = (integer(point.advertisers) for point in plan.curve)
    table = Table("true effect", *sizes, title="Probability to find it, by number of advertisers", title_justify="left")
    for row, effect in enumerate(plan.curve_effects):
        table.add_row(change(1 + effect), *(percent(point.powers[row], 0) for point in plan.curve))
    table.add_section()
    found = (change(1 + point.minimum_detectable_effect) for point in plan.curve)
    table.add_row(f"found with {100 * plan.power:.6g} %", *found)
    table.add_row("standard error", *(fixed(point.standard_error, 4) for point in plan.curve))
    return table
