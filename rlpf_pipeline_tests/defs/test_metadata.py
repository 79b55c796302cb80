"""What an asset's page shows."""

import base64

import pytest

from rlpf_pipeline.artifacts import publish
from rlpf_pipeline.defs.building import outcome_of
from rlpf_pipeline.defs.metadata import result_of
from rlpf_pipeline.defs.stages import folder_of, recipe_of
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import Settings

SVG = "<svg xmlns='http://www.w3.org/2000/svg'/>"


def test_the_pictures_of_a_page_stand_in_it_as_the_ui_has_no_folder_to_find_them_in(everything_built: Settings) -> None:
    recipe = recipe_of("ab_report", everything_built)
    with publish(folder_of("ab_report", everything_built), recipe) as (folder, _):
        (folder / "report.md").write_text("# Report\n\n![Models](forest.svg)\n")
        (folder / "forest.svg").write_text(SVG)
    shown = result_of(outcome_of("ab_report", everything_built, reused=False), everything_built).metadata or {}
    url = f"data:image/svg+xml;base64,{base64.b64encode(SVG.encode()).decode()}"
    assert shown["report"].value == f"# Report\n\n![Models]({url})\n"
    assert shown["forest"].value == f"![forest]({url})"


def test_a_table_that_is_not_what_was_written_is_told_where_its_rows_are_counted(everything_built: Settings) -> None:
    folder = folder_of("raw_multitext_ads", everything_built)
    with publish(folder, recipe_of("raw_multitext_ads", everything_built)) as (building, _):
        (building / "multitext_ads.parquet").write_bytes(b"PAR1 rows PAR1")
    (folder / "multitext_ads.parquet").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"multitext_ads\.parquet is not what was written.*make it again"):
        result_of(outcome_of("raw_multitext_ads", everything_built, reused=True), everything_built)
