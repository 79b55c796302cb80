"""Ingest: a user's files in, `multitext_ads.parquet` and `rejects.parquet` out; every row ends in exactly one of them.

Rows pass through DuckDB alone, which spills to disk what memory does not hold: read as text (`files`), given meaning by
the format's SELECT and `sql/staging/stg_understood_rows.sql`; `stg_refused_rows.sql` refuses a bad row with the first
reason that applies.

    rlpf ingest packages.csv --format upworthy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import duckdb

from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS, REJECTS, Table
from rlpf_pipeline.errors import UserError, listed
from rlpf_pipeline.settings import IngestSettings
from rlpf_pipeline.sources.files import CREATE_SOURCE_ROWS, read_file
from rlpf_pipeline.sources.generic import GENERIC
from rlpf_pipeline.sources.google_ads import GOOGLE_ADS
from rlpf_pipeline.sources.meta_ads import META_ADS
from rlpf_pipeline.sources.upworthy import UPWORTHY
from rlpf_pipeline.warehouse import MEMORY_LIMIT, connect, read_sql

DEFAULTS = IngestSettings()
ACCEPTED_FILE = "multitext_ads.parquet"
REJECTS_FILE = "rejects.parquet"
# An id that several owners use is an ad of each. Hashes find them: should two meet by chance, an id that needed no name
# has one.
NAME_OWNERS_OF_SHARED_IDS = """
UPDATE understood_rows SET ad_id = {owner} || ':' || ad_id
WHERE {owner} IS NOT NULL AND hash(ad_id) IN (
    SELECT hash(ad_id) AS id FROM understood_rows
    WHERE own_reason IS NULL AND {owner} IS NOT NULL
        AND (SELECT min({owner}) < max({owner}) FROM understood_rows)
    GROUP BY id HAVING min(hash({owner})) < max(hash({owner}))
)
"""
KINDS_OF_REJECTS = """
SELECT count(*) AS rows, arg_max(reason, (length(reason), reason)) AS longest
FROM read_parquet($path, hive_partitioning = false)
GROUP BY if(starts_with(reason, 'malformed'), split_part(reason, ';', 1), split_part(reason, ':', 1))
ORDER BY rows DESC, longest
"""
FORMATS = {source_format.name: source_format for source_format in (UPWORTHY, META_ADS, GOOGLE_ADS, GENERIC)}


class IngestCounts(NamedTuple):
    """Rows found in the files (headers and blank lines aside), and what became of them: read = accepted + rejected."""

    read: int
    accepted: int
    rejected: int


def ingest(
    files: Sequence[Path],
    source: str,
    folder: Path,
    settings: IngestSettings = DEFAULTS,
    on_progress: Callable[[str], None] = lambda doing: None,
) -> IngestCounts:
    """Write the accepted and the refused rows of `files` into the existing `folder`.

    source: name of the format: upworthy, meta-ads, google-ads or generic. on_progress: hears what is done now. Bad rows
    become rejects. Raises UserError for an unknown format, a fault of a whole file, or when no row at all was accepted.
    """
    if source not in FORMATS:
        raise UserError(f"Unknown format '{source}'. Choose one of: {', '.join(FORMATS)}.")
    if not files:
        raise UserError("No file to ingest. Name at least one (DATA=… or on the command line).")
    source_format = FORMATS[source]
    with (
        TemporaryDirectory(dir=folder) as spill,
        connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": spill}) as connection,
    ):
        connection.execute(read_sql("macros"))
        connection.execute(CREATE_SOURCE_ROWS)
        for file_index, path in enumerate(files):
            on_progress(f"reading {path.name}, {file_index + 1} of {len(files)}")
            read_file(connection, path, file_index, source_format.required(settings))
        on_progress("judging rows")
        parameters = {"source": source, **source_format.parameters(settings)}
        typed = f"WITH typed_rows AS ({read_sql(source_format.staging)}) {read_sql('staging/stg_understood_rows')}"
        connection.execute(f"CREATE TABLE understood_rows AS {typed}", parameters)
        for owner in ("source", "advertiser_id"):
            connection.execute(NAME_OWNERS_OF_SHARED_IDS.format(owner=owner))
        connection.execute(f"CREATE TABLE refused_rows AS {read_sql('staging/stg_refused_rows')}")
        read = count(connection, "FROM source_rows")
        if count(connection, "FROM refused_rows") == read:
            raise UserError(nothing_accepted(connection, files, read))
        on_progress("writing")
        write(connection, REJECTS, "source_rows INNER JOIN refused_rows", folder / REJECTS_FILE)
        connection.execute("DROP TABLE source_rows")
        write(connection, RAW_MULTITEXT_ADS, "understood_rows ANTI JOIN refused_rows", folder / ACCEPTED_FILE)
        counts = IngestCounts(
            read,
            accepted=count(connection, "FROM read_parquet($path)", folder / ACCEPTED_FILE),
            rejected=count(connection, "FROM read_parquet($path)", folder / REJECTS_FILE),
        )
    if counts.read != counts.accepted + counts.rejected:
        raise RuntimeError(f"Rows were lost or doubled in ingest: {counts}. This is a fault of rlpf_pipeline.")
    return counts


def write(connection: duckdb.DuckDBPyConnection, table: Table, joined: str, path: Path) -> None:
    """Write `table`'s columns of rows that are `joined` by their place, ordered by all its columns."""
    columns = ", ".join(f"{column.name}::{column.type} AS {column.name}" for column in table.columns)
    connection.execute(
        f"COPY (SELECT {columns} FROM {joined} USING (file_index, position) ORDER BY ALL) TO $path "  # noqa: S608
        "(FORMAT parquet, COMPRESSION zstd)",
        {"path": str(path)},
    )


def count(connection: duckdb.DuckDBPyConnection, rows: str, path: Path | None = None) -> int:
    parameters = {"path": escape(str(path))} if path else {}
    (number,) = connection.execute(f"SELECT count(*) {rows}", parameters).fetchall()[0]
    return int(number)


def kinds_of_rejects(folder: Path) -> list[tuple[int, str]]:
    """How many rows `ingest` refused into `folder` of each kind, and the one reason of them that says most."""
    with connect() as connection:
        return connection.execute(KINDS_OF_REJECTS, {"path": escape(str(folder / REJECTS_FILE))}).fetchall()


def nothing_accepted(connection: duckdb.DuckDBPyConnection, files: Sequence[Path], read: int) -> str:
    named = listed(files)
    if read == 0:
        return f"{named}: no data row below the header. Export the file again."
    reasons = connection.execute(
        "SELECT reason, count(*) AS rows FROM refused_rows GROUP BY reason ORDER BY rows DESC, reason LIMIT 5"
    ).fetchall()
    told = "; ".join(f"{reason} ({rows})" for reason, rows in reasons)
    return f"{named}: none of the {read} rows can be used: {told}. Correct the file, or choose the format it is in."
