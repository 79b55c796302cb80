"""`rlpf generate --input`: suggestions for every row of a file.

    rlpf generate --policy DIR --input ads.csv --text-column headline -n 4 --output suggestions.parquet

The output has a row a suggestion (contracts.GENERATED_TEXTS). Equal texts of equal contexts are served once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rlpf_pipeline.arrow_tables import arrow_schema
from rlpf_pipeline.contracts import GENERATED_TEXTS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.input_rows import load_rows, require_columns
from rlpf_pipeline.evaluation.output_file import require_table
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.training.suggest import Policy, suggest
from rlpf_pipeline.warehouse import connect, quoted
from rlpf_pipeline.whole_files import written_whole


def generate_file(
    policy: Policy,
    source: Path,
    text_column: str,
    n: int,
    seed: int,
    output: Path,
    reward_model: RewardModel | None = None,
    context_columns: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, int]:
    """Write the suggestions; returns rows read and how many of them got fewer than `n`.

    Raises UserError for what is wrong with the file, its column or its texts; `output` then is as it was.
    """
    require_table(output, source)
    ads = ads_of(source, text_column, context_columns)
    first_rows: dict[tuple[str | None, str], int] = {}
    for number, ad in enumerate(ads, start=1):
        first_rows.setdefault(ad, number)
    suggested = suggest(policy, list(first_rows), n, seed, reward_model, on_progress, list(first_rows.values()))
    own = dict(zip(first_rows, suggested, strict=True))
    rows = [
        {
            "row": number,
            "original": ad[1],
            "rank": rank,
            "text": suggestion.text,
            "reward": suggestion.reward,
            "reward_spread": suggestion.spread,
        }
        for number, ad in enumerate(ads, start=1)
        for rank, suggestion in enumerate(own[ad], start=1)
    ]
    with written_whole(output) as building:
        pq.write_table(pa.Table.from_pylist(rows, arrow_schema(GENERATED_TEXTS)), building)
    return len(ads), sum(len(own[ad]) < n for ad in ads)


def ads_of(source: Path, text_column: str, context_columns: Sequence[str]) -> list[tuple[str | None, str]]:
    """Context (columns joined by a space, as `rlpf score` does) and text of each row, in order.

    Raises UserError where a column is missing or no text, or the text is empty in a row.
    """
    with connect(config={"threads": 1}) as connection:
        load_rows(connection, source)
        require_columns(connection, source, (text_column, *context_columns))
        context = f"concat_ws(' ', {', '.join(map(quoted, context_columns))})" if context_columns else "NULL"
        # In the order of its rows, as DuckDB keeps it: `rowid`, which counts them, may be a column of the user's.
        ads = connection.execute(f"SELECT {context}, {quoted(text_column)} FROM input").fetchall()  # noqa: S608
    empty = next((number for number, (_, text) in enumerate(ads, start=1) if not (text or "").strip()), None)
    if empty:
        raise UserError(f"Column '{text_column}' of {source} is empty in row {empty:,}. Fill it in or leave it out.")
    return ads
