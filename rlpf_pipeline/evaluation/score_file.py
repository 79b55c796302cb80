"""`rlpf score`: a reward and its uncertainty for every row of a file of any size, in bounded memory.

    rlpf score --reward-model DIR --input ads.csv --text-column headline --group-column ad --output scored.parquet

The rows go into a DuckDB file beside the output, which leaves memory for the disk where it must; every distinct text
(behind its context) is scored once, texts of one context and of like length together. Texts and contexts are written as
in training: Unicode NFC, white space collapsed (clean_text of sql/macros.sql); several context columns are joined by
a space, empty ones left out.

reward_mean and reward_spread are mean and standard deviation over the model's heads. Within a group (the rows that
agree in all group columns; rows without any value in them are groups of one), over its distinct texts:

    rank     1 for the highest reward_mean; equal ones share the smaller number
    p_best   mean over heads h of  exp(r_h) / sum over the group's texts of exp(r_h)

The latter is the probability of being the best one under the model that the heads are trained as: Bradley-Terry,
extended from two texts to many by Luce's choice axiom (Luce 1959; Plackett 1975). For two texts and one head it is
sigmoid(margin), exactly; the mean over heads carries their disagreement: heads that disagree flatten it, which the
softmax of reward_mean would hide. A model trained pointwise scores log CTRs, whose differences are no log odds: for it
p_best is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlpf_pipeline.artifacts import building_of
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.input_rows import load_rows, require_columns
from rlpf_pipeline.evaluation.output_file import require_table
from rlpf_pipeline.evaluation.split import Ads
from rlpf_pipeline.warehouse import Config, connect, files_of, quoted, read_sql
from rlpf_pipeline.whole_files import move_into_place, remove

MEMORY_LIMIT = "1GB"
CHUNK = 8192
"""Texts that are handed to the model at a time: enough to find many of the same length."""
TEXTS_PER_CONTEXT = 8
"""Texts that share one encoded context."""
ADDED = ("reward_mean", "reward_spread")
SCORES = pa.schema(
    [("number", pa.int64()), ("heads", pa.list_(pa.float64())), *((name, pa.float64()) for name in ADDED)]
)

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


class RewardScorer(Protocol):
    def score(self, ads: Ads, on_progress: Callable[[int], None]) -> list[np.ndarray]:
        """Scores (texts, heads) of each (context, texts), in order; on_progress hears how many texts have one."""
        ...

    @property
    def log_odds(self) -> bool:
        """Whether a difference of scores is the log odds of being the better text."""
        ...


class ScoreColumns(NamedTuple):
    """Columns of the input: the text, those that make its context, those that say which rows compete."""

    text: str
    context: tuple[str, ...] = ()
    group: tuple[str, ...] = ()


class Scored(NamedTuple):
    """Rows written, and distinct texts (behind their contexts) that the model had to score."""

    rows: int
    texts: int


def score_file(
    model: RewardScorer,
    source: Path,
    columns: ScoreColumns,
    output: Path,
    on_progress: Progress = lambda done, total: None,
) -> Scored:
    """Write `source`'s rows and columns, in order, with the scores added, to the Parquet file `output`.

    on_progress: called with texts scored and texts in all. Raises UserError for what is wrong with the file, its
    columns or its texts; `output` then is as it was.
    """
    require_table(output, source)
    added: tuple[str, ...] = ADDED
    if columns.group:
        added += ("rank", "p_best") if model.log_odds else ("rank",)
        if not model.log_odds:
            log.warning(
                "p_best is left out: the reward model was trained pointwise, and its scores are log CTRs, not log odds."
            )
    with scratch_beside(output) as scratch, connect_in(scratch) as connection:
        connection.execute(read_sql("macros"))
        load_rows(connection, source)
        require(connection, source, columns, added)
        texts = number_texts(connection, source, columns)
        score_texts(connection, model, scratch / "scores.parquet", texts, on_progress)
        connection.read_parquet(files_of(scratch / "scores.parquet")).create_view("scores")
        if columns.group:
            rank_groups(connection, source)
        rows = write(connection, added, scratch / output.name)
        move_into_place(scratch / output.name, output)
    return Scored(rows, texts)


@contextmanager
def scratch_beside(output: Path) -> Iterator[Path]:
    """A folder on the output's disk that is gone afterwards; what a killed run left there goes first."""
    scratch = building_of(output)
    remove(scratch)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        remove(scratch)


def connect_in(scratch: Path) -> duckdb.DuckDBPyConnection:
    """One thread: sums then have an order, and equal input gives equal bytes. Most of the time is the model's."""
    config: Config = {"memory_limit": MEMORY_LIMIT, "threads": 1, "temp_directory": str(scratch / "spilled")}
    return connect(scratch / "rows.duckdb", config)


def require(connection: duckdb.DuckDBPyConnection, source: Path, columns: ScoreColumns, added: tuple[str, ...]) -> None:
    """Raises UserError where a column is missing, holds no text, or has the name of one that is added."""
    names = require_columns(connection, source, (columns.text, *columns.context), columns.group)
    # DuckDB counts the rows in a hidden column of that name, which one of the user's would cover.
    reserved = ("rowid", *added)
    taken = [name for name in names if name.lower() in reserved]
    if taken:
        raise UserError(f"{source} has the column(s) {', '.join(taken)} already. Rename or drop them first.")


NUMBER_TEXTS = """
CREATE TABLE texts AS
SELECT context, text FROM (SELECT DISTINCT context, text FROM keyed) ORDER BY context NULLS FIRST, length(text), text
"""

PLACE_ROWS = """
CREATE TABLE placed AS
SELECT keyed.row, keyed.group_key, texts.rowid AS number
FROM keyed INNER JOIN texts ON keyed.text = texts.text AND keyed.context IS NOT DISTINCT FROM texts.context
"""


def number_texts(connection: duckdb.DuckDBPyConnection, source: Path, columns: ScoreColumns) -> int:
    """Make `texts` (distinct, contexts together, by length) and `placed` (row → text and group); returns their number.

    Raises UserError where a row has no text, or no row has a letter.
    """
    context = f"concat_ws(' ', {', '.join(map(as_trained, columns.context))})" if columns.context else "NULL"
    key = "NULL::VARCHAR"
    if columns.group:
        given = [f"{quoted(name)}::VARCHAR" for name in columns.group]
        values = ", ".join(f"if(trim({name}) <> '', {name}, NULL)" for name in given)
        key = f"CASE WHEN coalesce({values}) IS NULL THEN 'row ' || rowid ELSE to_json([{values}])::VARCHAR END"
    connection.execute(
        f"CREATE TABLE keyed AS SELECT rowid AS row, {as_trained(columns.text)} AS text, "  # noqa: S608 (quoted names)
        f"nullif({context}, '') AS context, {key} AS group_key FROM input"
    )
    empty, first, words = connection.execute(
        "SELECT count(*) FILTER (text IS NULL), min(row) FILTER (text IS NULL) + 1, "
        "bool_or(regexp_matches(text, '\\pL')) FROM keyed"
    ).fetchall()[0]
    if empty:
        raise UserError(
            f"Column '{columns.text}' of {source} is empty in {empty:,} row(s), first in row {first:,} of the data. "
            "A row without text cannot be scored: fill it in or leave the row out."
        )
    if not words:
        raise UserError(
            f"Column '{columns.text}' of {source} holds no letter in any row. Name the column of the texts."
        )
    connection.execute(NUMBER_TEXTS)
    connection.execute(PLACE_ROWS)
    connection.execute("DROP TABLE keyed")
    return int(connection.execute("SELECT count(*) FROM texts").fetchall()[0][0])


def as_trained(column: str) -> str:
    """SQL of a column's text in the form that training sees, null where nothing is left."""
    return f"clean_text({quoted(column)})"


def score_texts(
    connection: duckdb.DuckDBPyConnection, model: RewardScorer, path: Path, total: int, on_progress: Progress
) -> None:
    """Write number, heads, reward_mean and reward_spread of every text to `path`, a chunk in memory at a time."""
    done = 0
    on_progress(done, total)
    with pq.ParquetWriter(path, SCORES) as file:
        reader = connection.cursor().execute("SELECT rowid, context, text FROM texts ORDER BY rowid")
        while rows := reader.fetchmany(CHUNK):
            own = model.score(behind_contexts(rows), partial(told, on_progress, done, total))
            heads = np.concatenate(own).astype(np.float64)
            if not np.isfinite(heads).all():
                raise ValueError("the reward model gave a score that is not finite")
            numbers = pa.array([number for number, _, _ in rows], pa.int64())
            file.write_table(
                pa.table(
                    [numbers, pa.array(heads.tolist(), SCORES.field("heads").type), heads.mean(1), heads.std(1)], SCORES
                )
            )
            done += len(rows)


def told(on_progress: Progress, before: int, total: int, done: int) -> None:
    on_progress(before + done, total)


def behind_contexts(rows: Sequence[tuple[int, str | None, str]]) -> list[tuple[str | None, list[str]]]:
    """(context, texts) in order, at most TEXTS_PER_CONTEXT texts each; without a context every text on its own."""
    ads = []
    for context, own in groupby(rows, key=lambda row: row[1]):
        texts = [text for _, _, text in own]
        together = 1 if context is None else TEXTS_PER_CONTEXT
        ads += [(context, texts[at : at + together]) for at in range(0, len(texts), together)]
    return ads


RANK = """
CREATE TABLE ranked AS
WITH members AS (SELECT DISTINCT group_key, number FROM placed),
scored AS (
    SELECT group_key, number, reward_mean, unnest(heads) AS score, generate_subscripts(heads, 1) AS head
    FROM members INNER JOIN scores USING (number)
),
shifted AS (
    SELECT *, exp(score - max(score) OVER (PARTITION BY group_key, head)) AS share FROM scored
),
chosen AS (
    SELECT *, share / sum(share) OVER (PARTITION BY group_key, head) AS p FROM shifted
),
averaged AS (
    SELECT group_key, number, any_value(reward_mean) AS reward_mean, avg(p) AS p_best
    FROM chosen
    GROUP BY group_key, number
)
SELECT group_key, number, rank() OVER (PARTITION BY group_key ORDER BY reward_mean DESC) AS rank, p_best FROM averaged
"""

MIXED_CONTEXTS = """
SELECT group_key, count(DISTINCT coalesce(context, '')) AS contexts
FROM placed INNER JOIN texts ON placed.number = texts.rowid
GROUP BY group_key HAVING contexts > 1 ORDER BY group_key LIMIT 1
"""


def rank_groups(connection: duckdb.DuckDBPyConnection, source: Path) -> None:
    """Make `ranked`: rank and p_best of each text of each group. Raises UserError where a group's contexts differ."""
    mixed = connection.execute(MIXED_CONTEXTS).fetchone()
    if mixed:
        raise UserError(
            f"Group {mixed[0]} of {source} has {mixed[1]} different contexts. Texts compete behind one context: name "
            "the context columns as group columns too (--group-column), or leave the context out."
        )
    connection.execute(RANK)


def write(connection: duckdb.DuckDBPyConnection, added: tuple[str, ...], path: Path) -> int:
    """Write the input's rows in order with the added columns; returns their number."""
    ranked = "INNER JOIN ranked USING (group_key, number)" if "rank" in added else ""
    connection.execute(
        f"COPY (SELECT input.*, rewards.* EXCLUDE row FROM input INNER JOIN ("  # noqa: S608
        f"SELECT placed.row, {', '.join(added)} FROM placed INNER JOIN scores USING (number) {ranked}"
        ") AS rewards ON input.rowid = rewards.row ORDER BY rewards.row) TO $path (FORMAT parquet, COMPRESSION zstd)",
        {"path": str(path)},
    )
    return int(pq.read_metadata(path).num_rows)
