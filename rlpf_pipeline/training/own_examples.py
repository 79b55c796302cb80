"""Examples of the user's own: a JSON Lines or Parquet file of originals, instructions, rewrites and their authors."""

from __future__ import annotations

from glob import escape
from pathlib import Path

import duckdb
import pandas as pd

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.sources.files import JSON_LINES, file_kind
from rlpf_pipeline.sources.json_lines import READ_JSON_LINES, TEXT_TYPES, refuse_keys_alike, refuse_no_objects
from rlpf_pipeline.sources.refused import MAX_ROW_BYTES
from rlpf_pipeline.training.example_filter import reason_to_refuse
from rlpf_pipeline.training.prompts import cleaned
from rlpf_pipeline.warehouse import connect, reason_of

COLUMNS = ("original", "instruction", "rewrite", "author")
AUTHORS = ("human", "synthetic")
OTHER_SPLITS = """
SELECT DISTINCT text, split FROM read_parquet($variants) WHERE split <> 'train' AND list_contains($texts, text)
"""


def read_own_examples(path: Path, snapshot: Path) -> pd.DataFrame:
    """The file's rows (contracts.CURATED_EXAMPLES, texts cleaned as ads' are) and `reason`: why one is refused, or "".

    Refused is also a text of an ad outside the training split: policies are judged on those. Raises UserError where the
    file cannot be read, or a column is missing or no text.
    """
    with connect() as connection:
        examples = read_rows(connection, path)
        for column in ("original", "rewrite"):
            examples[column] = [cleaned(text) for text in examples[column].fillna("")]
        texts = [*examples.original, *examples.rewrite]
        found = connection.execute(
            OTHER_SPLITS, {"variants": escape(str(snapshot / "variants.parquet")), "texts": texts}
        )
        elsewhere: dict[str, str] = dict(found.fetchall())
    return examples.assign(reason=[refusal(*row, elsewhere) for row in examples.itertuples(index=False, name=None)])


def read_rows(connection: duckdb.DuckDBPyConnection, path: Path) -> pd.DataFrame:
    kind = file_kind(path)
    source, options = "read_parquet($path, hive_partitioning = false)", {"path": escape(str(path))}
    if kind in JSON_LINES:
        source, options = READ_JSON_LINES, options | {"max_row_bytes": MAX_ROW_BYTES}
    elif kind != ".parquet":
        raise UserError(f"{path}: examples are read from JSON Lines ({', '.join(JSON_LINES)}) or .parquet.")
    try:
        if kind in JSON_LINES:
            refuse_keys_alike(connection, path)
        described = connection.execute(f"DESCRIBE FROM {source}", options).fetchall()
        types = {str(column): str(own) for column, own, *_ in described}
        if kind in JSON_LINES:
            refuse_no_objects(connection, path, types)
        require_texts(path, types)
        return connection.execute(f"FROM {source}", options).df()[list(COLUMNS)]
    except duckdb.Error as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)} Check that it is complete.") from error


def require_texts(path: Path, types: dict[str, str]) -> None:
    missing = [column for column in COLUMNS if column not in types]
    if missing:
        raise UserError(
            f"{path} lacks the column(s) {', '.join(missing)}. Found: {', '.join(types)}. Examples have the columns "
            f"{', '.join(COLUMNS)}; an instruction may be null, an author is {' or '.join(AUTHORS)}."
        )
    wrong = [f"{name} ({types[name]})" for name in COLUMNS if types[name] not in TEXT_TYPES]
    if wrong:
        raise UserError(f"{path} holds what is no text in the column(s) {', '.join(wrong)}.")


def refusal(original: str, instruction: str | None, rewrite: str, author: str | None, elsewhere: dict[str, str]) -> str:
    """Why a row is no example, or an empty string. elsewhere: splits of texts outside the training split."""
    if author not in AUTHORS:
        return f"author is neither {' nor '.join(AUTHORS)}"
    if not original:
        return "no original"
    for text in (original, rewrite):
        if text in elsewhere:
            return f"a text of an ad of the {elsewhere[text]} split"
    return reason_to_refuse(original, rewrite)
