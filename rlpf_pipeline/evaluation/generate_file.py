"""`rlpf generate --input`: suggestions for every row of a file.

    rlpf generate --policy DIR --input ads.csv --text-column headline -n 4 --output suggestions.parquet

The output has a row a suggestion: `row` of the input (the first is 1), `original`, `rank`, `text`, `reward` (null
without a reward model). Equal texts are served once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.input_rows import load_rows, quoted
from rlpf_pipeline.models.reward_model import RewardModel
from rlpf_pipeline.training.suggest import Policy, suggest

SUGGESTIONS = pa.schema(
    [
        ("row", pa.int64()),
        ("original", pa.string()),
        ("rank", pa.int32()),
        ("text", pa.string()),
        ("reward", pa.float64()),
    ]
)


def generate_file(
    policy: Policy,
    source: Path,
    text_column: str,
    n: int,
    seed: int,
    output: Path,
    reward_model: RewardModel | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, int]:
    """Write the suggestions; returns rows read and how many of them got fewer than `n`.

    Raises UserError for what is wrong with the file, its column or its texts; `output` then is as it was.
    """
    if output.suffix != ".parquet":
        raise UserError(f"The output {output} is written as Parquet: give it a name that ends in .parquet.")
    if output.is_dir() or output.resolve() == source.resolve():
        raise UserError(
            f"The output {output} is {'a folder' if output.is_dir() else 'the input'}. Choose another name."
        )
    originals = texts_of(source, text_column)
    distinct = list(dict.fromkeys(originals))
    own = dict(zip(distinct, suggest(policy, distinct, n, seed, reward_model, on_progress), strict=True))
    rows = [
        {"row": number, "original": original, "rank": rank, "text": suggestion.text, "reward": suggestion.reward}
        for number, original in enumerate(originals, start=1)
        for rank, suggestion in enumerate(own[original], start=1)
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    building = output.with_name(f".{output.name}.building")
    pq.write_table(pa.Table.from_pylist(rows, SUGGESTIONS), building)
    building.replace(output)
    return len(originals), sum(len(own[original]) < n for original in originals)


def texts_of(source: Path, column: str) -> list[str]:
    """The column's texts in the order of rows. Raises UserError where it is missing, no text, or empty in a row."""
    with duckdb.connect(config={"threads": 1}) as connection:
        load_rows(connection, source)
        types = {str(name): str(kind) for name, kind, *_ in connection.execute("DESCRIBE input").fetchall()}
        if column not in types:
            raise UserError(f"{source} has no column '{column}'. It has: {', '.join(types)}.")
        if types[column] != "VARCHAR":
            raise UserError(f"Column '{column}' of {source} holds {types[column]}, not text.")
        statement = f"SELECT {quoted(column)} FROM input ORDER BY rowid"  # noqa: S608 (a quoted name)
        texts = [text for (text,) in connection.execute(statement).fetchall()]
    empty = next((number for number, text in enumerate(texts, start=1) if not (text or "").strip()), None)
    if empty:
        raise UserError(f"Column '{column}' of {source} is empty in row {empty:,}. Fill it in or leave it out.")
    return texts
