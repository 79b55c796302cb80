"""The warehouse: one DuckDB file, held by one process at a time, whose tables are the SELECTs in `sql/`.

A file `sql/marts/splits.sql` holds one SELECT; `run_sql("marts/splits")` replaces the table `splits` by its result,
whole or not at all. A table as large as the data (`parts`) is a folder of Parquet files in `marts/` beside the DuckDB
file, which shows it as a view: it is written once, a range of ads at a time, so that memory and caches hold what is
worked on however many ads there are; training reads links to its files and never opens the warehouse.
Where the SELECT of a table ends in ORDER BY, the table keeps that order, and `rowid` numbers its rows from 0, once it
is committed: inside the transaction that makes it, DuckDB numbers them otherwise.
`sql/macros.sql` holds the functions that DuckDB lacks; they are there on every connection.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import duckdb

from rlpf_pipeline.artifacts import Recipe, building_of, publish, require_as_written
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.package import SQL
from rlpf_pipeline.whole_files import link_or_copy, remove

IDENTIFIER = re.compile(r"[a-z_]+")
PARAMETER = re.compile(r"\$([a-z_]+)")
MEMORY_LIMIT = "3600MB"
"""Of DuckDB, so that a process with it stays within 4 GiB."""
LOCK_POLL_SECONDS = 0.5
COMPRESSED = (".gz", ".zst")
SAMPLE_ROWS = 5
BATCH_ROWS = 1_000_000
PARQUET = "FORMAT parquet, PARQUET_VERSION V2, DICTIONARY_SIZE_LIMIT 1000, COMPRESSION zstd, COMPRESSION_LEVEL 1"
"""Numbers and texts that hardly repeat are no dictionary's; sorted, their differences are small (V2)."""

CORRUPT, CUT_SHORT = "Corrupt database file", "Could not read enough bytes"
"""What DuckDB says of a damaged file, its own or another's."""

Config = dict[str, str | bool | int | float | list[str]]


def connect(path: Path | None = None, config: Config | None = None) -> duckdb.DuckDBPyConnection:
    """A connection to that file, or to memory, whose queries print nothing: DuckDB's progress bar, drawn after two
    seconds in a terminal or not, would stand among the results. Times with a zone are those of UTC. Who works on rows
    also reads them: files are local, and the threads that DuckDB has for waiting (four a core) cost 4 % of the time."""
    connection = duckdb.connect(str(path) if path else ":memory:", config={"async_threads": 0} | (config or {}))
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


class CheckResult(NamedTuple):
    """Outcome of one data check: `failing` counts the offending rows, `sample` shows the first few of them."""

    failing: int
    sample: list[dict[str, Any]]


class Warehouse:
    """The open warehouse; use it in a `with` statement, which closes the file also when an exception passes. One of
    DuckDB's becomes a UserError where the file, or one of a table, is not what was written.

    lock_timeout: seconds to wait for another process to let go of the file. Raises UserError when it does not.
    restoring: an exception leaves all tables as they were, at the price of a copy of the file and links to Parquet.
    """

    def __init__(self, path: Path, lock_timeout: float = 30.0, restoring: bool = False) -> None:
        self.path = path
        self.lock_timeout = lock_timeout
        self.restoring = restoring
        self.marts = path.with_name("marts")
        self.before = path.with_name(f".{path.name}.before")
        self.stored: list[str] = []

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.marts.is_dir() and (self.before / "marts").is_dir():
            (self.before / "marts").rename(self.marts)  # a restore was killed half way
        self.connection = self._connect_when_free()
        try:
            self.connection.execute(read_sql("macros"))
            self._find_files()
            if self.restoring:
                self._copy()
        except BaseException as error:
            self.connection.close()
            shutil.rmtree(self.before, ignore_errors=True)
            self._require_whole(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.connection.close()
        if self.restoring:
            if kind:
                self._restore()
            shutil.rmtree(self.before)
        self._require_whole(error)

    def _require_whole(self, after: BaseException | None) -> None:
        """Raises UserError where an error of DuckDB comes of a damaged file."""
        if not isinstance(after, duckdb.Error):
            return
        for table in self.stored:
            self.parts_of(table)
        told = str(after)
        if CORRUPT in told or (CUT_SHORT in told and str(self.path) in told):
            raise UserError(
                f"The warehouse {self.path} is damaged: {reason_of(after)}. Delete it: every table in it is built "
                "again from the raw files."
            ) from after

    def _copy(self) -> None:
        shutil.rmtree(self.before, ignore_errors=True)
        self.marts.mkdir(exist_ok=True)
        shutil.copytree(
            self.marts, self.before / "marts", copy_function=lambda part, to: link_or_copy(Path(part), Path(to))
        )
        self.connection.execute("CHECKPOINT")
        # By another process: as soon as this one closed the file, DuckDB's lock on it would be gone.
        done = subprocess.run(["cp", self.path, self.before / "file"], capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr)

    def _restore(self) -> None:
        self.path.with_name(f"{self.path.name}.wal").unlink(missing_ok=True)
        (self.before / "file").replace(self.path)
        shutil.rmtree(self.marts)
        (self.before / "marts").rename(self.marts)

    def run_sql(self, name: str, parameters: Mapping[str, object] | None = None) -> int:
        """Replace the table named like the file `sql/<name>.sql` by that SELECT's result; returns its row count.

        parameters: values of the $names in the SELECT.
        """
        table = Path(name).name
        with self.transaction():
            self.drop(table)
            self.connection.execute(f"CREATE TABLE {identifier(table)} AS {read_sql(name)}", dict(parameters or {}))
        return self.count(table)

    def run_parts(
        self, name: str, each: Iterable[Mapping[str, object]], shared: Mapping[str, object] | None = None
    ) -> int:
        """Replace a table by files (`parts`), one for each set of parameters; returns its row count.

        each: of a set, the SELECT takes what it names. shared: parameters of every file, all of which it names.
        """
        names = set(PARAMETER.findall(read_sql(name)))
        with self.parts(name) as write:
            return sum(write({key: own[key] for key in names & own.keys()} | dict(shared or {})) for own in each)

    @contextmanager
    def parts(self, name: str) -> Iterator[Callable[[Mapping[str, object]], int]]:
        """Replace the table named like the file `sql/<name>.sql` by files that are written inside the `with` statement.

        Each call of what is yielded writes the SELECT's result with the given parameters as the next file, and returns
        its row count. The SELECT ends in ORDER BY: equal rows give equal bytes. On an exception the former files stay.
        """
        folder = self.folder_of(Path(name).name)
        numbers = count()
        self.connection.execute("SET preserve_insertion_order = true")
        try:
            with publish(folder, Recipe(stage=name)) as (building, _):

                def write(parameters: Mapping[str, object]) -> int:
                    path = str(building / f"part-{next(numbers):05}.parquet")
                    copy = f"COPY ({read_sql(name)}) TO $path ({PARQUET})"
                    return int(self.connection.execute(copy, {**parameters, "path": path}).fetchall()[0][0])

                yield write
        finally:
            remove(building_of(folder))
            self.connection.execute("SET preserve_insertion_order = false")
        self.view_parquet(Path(name).name, folder / "*.parquet")

    def folder_of(self, table: str) -> Path:
        """Folder of the Parquet files of a table that is written in parts."""
        return self.marts / f"{table}.parquet"

    def parts_of(self, table: str) -> list[Path]:
        """Those files, in order. Raises UserError where there is none, or one is not what was written."""
        folder = self.folder_of(table)
        try:
            if not folder.is_dir():
                raise UserError(f"{folder} is missing.")
            require_as_written(folder)
        except UserError as error:
            raise UserError(
                f"{error} To make it again, delete {self.path} and run again: every table is built from the raw files."
            ) from None
        return sorted(folder.glob("*.parquet"))

    def run_view(self, name: str) -> None:
        """Replace the view named like the file `sql/<name>.sql` by that SELECT, which has no parameters."""
        view = Path(name).name
        with self.transaction():
            self.drop(view)
            self.connection.execute(f"CREATE VIEW {identifier(view)} AS {read_sql(name)}")

    def view_parquet(self, view: str, path: Path) -> int:
        """Make `view` show the rows of a Parquet file (or of all that a pattern fits); returns their count."""
        home = self.path.parent
        place = path.relative_to(home) if path.is_relative_to(home) else path
        with self.transaction():
            self.drop(view)
            self.connection.read_parquet(files_of(path), hive_partitioning=False).create_view(
                identifier(view), replace=False
            )
            self.connection.execute(f"COMMENT ON VIEW {identifier(view)} IS {literal(str(place))}")
        return self.count(view)

    def _find_files(self) -> None:
        """A view names its files in full, its comment from the warehouse's folder: where that was moved or copied to
        another place, the view is made anew, or it would show the files of the place before."""
        views = "SELECT view_name, comment, sql FROM duckdb_views() WHERE comment IS NOT NULL"
        found = self.connection.execute(views).fetchall()
        self.stored = [view for view, place, _ in found if Path(place).is_relative_to(self.marts.name)]
        for view, place, sql in found:
            path = self.path.parent / place
            if literal(files_of(path)) in sql:
                continue
            if any(path.parent.glob(path.name)):
                self.view_parquet(view, path)
            else:
                self.drop(view)

    def replace_table(self, table: str, rows: Any) -> int:
        """Replace `table` by `rows` (a pyarrow Table); returns its row count."""
        with self.transaction():
            self.drop(table)
            self.connection.from_arrow(rows).create(identifier(table))
        return self.count(table)

    def drop(self, name: str) -> None:
        """Drop the table or view of that name, if there is one."""
        kinds = self.connection.execute(
            "SELECT CASE table_type WHEN 'VIEW' THEN 'VIEW' ELSE 'TABLE' END FROM information_schema.tables "
            "WHERE table_schema = 'main' AND table_name = $name",
            {"name": name},
        ).fetchall()
        for (kind,) in kinds:
            self.connection.execute(f"DROP {kind} {identifier(name)}")

    def discard(self, *tables: str) -> None:
        """Drop tables that nobody reads again, with the files of those that have any."""
        for table in tables:
            self.drop(table)
            shutil.rmtree(self.folder_of(table), ignore_errors=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: what runs inside is undone when an exception passes."""
        self.connection.begin()
        try:
            yield
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Any:
        """Result of a SELECT as a pyarrow Table."""
        return self.connection.sql(sql, params=dict(parameters or {})).to_arrow_table()

    def batches(self, sql: str) -> Iterator[Any]:
        """The result of a SELECT as pyarrow record batches, one in memory at a time; take all before other work."""
        yield from self.connection.sql(sql).to_arrow_reader(BATCH_ROWS)

    def count(self, table: str) -> int:
        return int(self.query("SELECT count(*) AS n FROM query_table($table)", {"table": table})["n"][0].as_py())

    def check(self, name: str) -> CheckResult:
        """Run `sql/checks/<name>.sql`, which returns the rows that break the rule."""
        offenders = self.query(read_sql(f"checks/{name}"))
        return CheckResult(offenders.num_rows, offenders.slice(0, SAMPLE_ROWS).to_pylist())

    def _connect_when_free(self) -> duckdb.DuckDBPyConnection:
        config: Config = {"memory_limit": MEMORY_LIMIT, "preserve_insertion_order": False}
        deadline = time.monotonic() + self.lock_timeout
        while True:
            try:
                return connect(self.path, config)
            except duckdb.IOException as error:
                if "lock" not in str(error).lower():
                    raise UserError(
                        f"The warehouse {self.path} cannot be opened: {error}. If it is damaged or was written by "
                        "another version of DuckDB, delete it: every table in it is built again from the raw files."
                    ) from error
                if time.monotonic() >= deadline:
                    raise UserError(
                        f"The warehouse {self.path} has been held by another process for {self.lock_timeout:g} s. "
                        "Close what else has it open (another run, a DuckDB shell, a notebook) and try again."
                    ) from error
            time.sleep(min(LOCK_POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def reason_of(error: Exception) -> str:
    """What DuckDB says first: its message up to the advice, settings or SQL that may follow, in one line."""
    return " ".join(re.split("\n\n|\nPossible fixes:|LINE 1:", str(error))[0].split())


def read_sql(name: str) -> str:
    """Text of `sql/<name>.sql`."""
    return (SQL / f"{name}.sql").read_text(encoding="utf-8")


def identifier(name: str) -> str:
    """`name`, if it is safe to stand in a statement as it is: identifiers cannot be bound as parameters."""
    if not IDENTIFIER.fullmatch(name):
        raise ValueError(f"'{name}' is no table or column name: only a-z and _ are allowed")
    return name


def files_of(path: Path) -> str:
    """A path or pattern as DuckDB takes it: a pattern in its last part only, whatever its folders are called."""
    return f"{escape(str(path.parent))}/{path.name}"


def ending_of(path: Path) -> str:
    """Of the file's name, in small letters and without .gz or .zst."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix


def quoted(name: str) -> str:
    """A column's name as it may stand in a statement, whatever is in it: names cannot be bound as parameters."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as it may stand in a statement where parameters cannot."""
    return "'" + text.replace("'", "''") + "'"
