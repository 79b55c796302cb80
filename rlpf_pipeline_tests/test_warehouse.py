import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.warehouse import SQL, Warehouse, connect, identifier, literal, quoted, read_sql

HOLD_THE_FILE = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


def test_waits_a_bounded_time_for_another_process_and_says_what_to_do(tmp_path):
    path = tmp_path / "warehouse.duckdb"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_FILE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    started = time.monotonic()
    with pytest.raises(UserError, match="held by another process"), Warehouse(path, lock_timeout=0.3):
        pass
    assert 0.3 <= time.monotonic() - started < 3
    holder.communicate()
    with Warehouse(path, lock_timeout=0.3) as warehouse:
        assert warehouse.query("SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_a_file_that_is_no_warehouse_is_a_user_error(tmp_path):
    (tmp_path / "warehouse.duckdb").write_text("this is no database" * 1000)
    with pytest.raises(UserError, match="cannot be opened"), Warehouse(tmp_path / "warehouse.duckdb"):
        pass


@pytest.mark.parametrize("cut_short", [True, False])
@pytest.mark.parametrize("restoring", [True, False])
def test_a_damaged_warehouse_is_told_with_what_to_do(tmp_path, restoring, cut_short):
    """Of a file that was truncated, or of which a block is other bytes, DuckDB learns when it reads that place."""
    path = tmp_path / "warehouse.duckdb"
    with Warehouse(path) as warehouse:
        warehouse.connection.execute("CREATE TABLE numbers AS SELECT random() AS n FROM range(100_000)")
    if cut_short:
        os.truncate(path, 400_000)
    else:
        path.write_bytes(path.read_bytes()[:100_000] + bytes(800_000))
    says = r"warehouse\.duckdb is damaged: .*\. Delete it: every table"
    with pytest.raises(UserError, match=says), Warehouse(path, restoring=restoring) as again:
        again.query("SELECT sum(n) FROM numbers")


def test_an_exception_closes_the_file_and_undoes_the_transaction(tmp_path):
    path = tmp_path / "warehouse.duckdb"
    with Warehouse(path) as warehouse:
        warehouse.connection.execute("CREATE TABLE kept AS SELECT 1 AS value")

    def fail_in_between():
        with Warehouse(path) as warehouse, warehouse.transaction():
            warehouse.connection.execute("CREATE OR REPLACE TABLE kept AS SELECT 2 AS value")
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail_in_between()
    # Another process can open it at once, and finds the former content.
    read = "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('SELECT value FROM kept').fetchall())"
    shown = subprocess.run([sys.executable, "-c", read, str(path)], capture_output=True, text=True, check=True)
    assert shown.stdout == "[(1,)]\n"


OPEN_IT = "import duckdb, sys; duckdb.connect(sys.argv[1], read_only=True)"


@pytest.mark.parametrize("fails", [True, False])
def test_a_stage_that_fails_leaves_every_table_as_it_was_and_nobody_else_looks_in_between(tmp_path, fails):
    path = tmp_path / "warehouse.duckdb"

    def write(warehouse, ad):
        warehouse.replace_table("raw_multitext_ads", pa.table({"ad_id": [ad]}))
        warehouse.run_parts("staging/stg_ads", [{}])

    with Warehouse(path) as warehouse:
        write(warehouse, "former")
    with suppress(KeyError), Warehouse(path, restoring=True) as warehouse:
        write(warehouse, "new")
        other = subprocess.run([sys.executable, "-c", OPEN_IT, str(path)], capture_output=True, text=True)
        assert "lock" in other.stderr
        if fails:
            raise KeyError
    with Warehouse(path) as warehouse:
        shown = [warehouse.query(f"FROM {table}").to_pylist() for table in ("raw_multitext_ads", "stg_ads")]
    assert shown == [[{"ad_id": "former" if fails else "new"}]] * 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["marts", "warehouse.duckdb"]


def test_a_failing_select_leaves_the_former_table(tmp_path):
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        warehouse.connection.execute("CREATE TABLE stg_ads AS SELECT 'former' AS ad_id")
        with pytest.raises(Exception, match="raw_multitext_ads does not exist"):
            warehouse.run_sql("staging/stg_ads")
        warehouse.connection.execute("CREATE TABLE raw_multitext_ads AS SELECT 1 AS value")
        with pytest.raises(Exception, match="No files found"):
            warehouse.view_parquet("raw_multitext_ads", tmp_path / "missing.parquet")
        assert warehouse.query("FROM stg_ads").to_pylist() == [{"ad_id": "former"}]
        assert warehouse.query("FROM raw_multitext_ads").to_pylist() == [{"value": 1}]


@pytest.mark.parametrize("stays", [True, False])
def test_views_follow_a_warehouse_that_is_copied_or_moved(tmp_path, stays):
    """A home is taken to a larger disk; a copy must not show the files of the place it came from."""
    before, after = tmp_path / "it's [before]", tmp_path / "[after]"
    before.mkdir()
    for name in ("inside", "gone", "outside"):
        place = tmp_path if name == "outside" else before
        pq.write_table(pa.table({"value": [1]}), place / f"{name}.parquet")
        with Warehouse(before / "warehouse.duckdb") as warehouse:
            warehouse.view_parquet(name, place / f"{name}.parquet")
    shutil.copytree(before, after)
    pq.write_table(pa.table({"value": [2]}), after / "inside.parquet")
    (after / "gone.parquet").unlink()
    if not stays:
        shutil.rmtree(before)
    with Warehouse(after / "warehouse.duckdb") as warehouse:
        assert warehouse.query("SELECT value FROM inside").to_pylist() == [{"value": 2}]
        assert warehouse.query("SELECT value FROM outside").to_pylist() == [{"value": 1}]
        assert "gone" not in [name for (name,) in warehouse.connection.execute("SHOW TABLES").fetchall()]


def test_a_restore_that_was_killed_half_way_is_finished(tmp_path):
    held = tmp_path / ".warehouse.duckdb.before" / "marts" / "variants.parquet"
    held.mkdir(parents=True)
    pq.write_table(pa.table({"value": [1]}), held / "part-00000.parquet")
    with Warehouse(tmp_path / "warehouse.duckdb", restoring=True) as warehouse:
        assert warehouse.view_parquet("variants", warehouse.folder_of("variants") / "*.parquet") == 1


@pytest.mark.parametrize(("restoring", "removed"), [(True, False), (False, False), (True, True)])
def test_files_of_a_table_that_are_not_what_was_written_are_named_with_what_to_do(
    tmp_path, own_sql, restoring, removed
):
    (own_sql / "marts").mkdir(exist_ok=True)
    (own_sql / "marts" / "numbers.sql").write_text("SELECT 1 AS n ORDER BY n")
    with Warehouse(tmp_path / "warehouse.duckdb") as warehouse:
        warehouse.run_parts("marts/numbers", [{}])
        folder = warehouse.folder_of("numbers")
    if removed:
        shutil.rmtree(folder)
    else:
        (folder / "part-00000.parquet").write_bytes(b"PAR1 ro")
    says = rf"numbers\.parquet.* {'missing' if removed else 'not what was written'}.*delete .*warehouse\.duckdb"
    with pytest.raises(UserError, match=says), Warehouse(tmp_path / "warehouse.duckdb", restoring=restoring) as again:
        again.query("SELECT sum(n) FROM numbers")


def test_a_damaged_file_of_a_table_is_told_also_where_the_warehouse_was_copied(tmp_path, own_sql):
    """There the view is made anew, which reads the file, when the warehouse opens."""
    (own_sql / "marts").mkdir(exist_ok=True)
    (own_sql / "marts" / "numbers.sql").write_text("SELECT 1 AS n ORDER BY n")
    with Warehouse(tmp_path / "before" / "warehouse.duckdb") as warehouse:
        warehouse.run_parts("marts/numbers", [{}])
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    (tmp_path / "after" / "marts" / "numbers.parquet" / "part-00000.parquet").write_bytes(b"")
    says = r"after.*numbers\.parquet.* not what was written.*delete .*warehouse\.duckdb"
    with pytest.raises(UserError, match=says), Warehouse(tmp_path / "after" / "warehouse.duckdb"):
        pass


def test_a_name_can_change_between_table_and_view(tmp_path):
    pq.write_table(pa.table({"value": [2, 3]}), tmp_path / "rows.parquet")
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        assert warehouse.replace_table("rows", pa.table({"value": [1]})) == 1
        assert warehouse.view_parquet("rows", tmp_path / "rows.parquet") == 2
        assert warehouse.replace_table("rows", pa.table({"value": [1]})) == 1


@pytest.fixture
def own_sql(tmp_path, monkeypatch):
    """A folder to write SELECTs into that takes the place of `sql/`."""
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "macros.sql").write_text("CREATE OR REPLACE TEMP MACRO one() AS 1")
    monkeypatch.setattr("rlpf_pipeline.warehouse.SQL", tmp_path / "sql")
    return tmp_path / "sql"


def test_parts_are_in_order_and_the_same_bytes_whatever_the_order_of_the_rows(tmp_path, own_sql):
    (own_sql / "keys.sql").write_text("SELECT hash(value) AS key, * FROM numbers WHERE value % 2 = $odd ORDER BY key")
    written = []
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        for values in (np.arange(800_000), np.arange(800_000)[::-1]):
            warehouse.replace_table("numbers", pa.table({"value": values}))
            with warehouse.parts("keys") as write:
                assert [write({"odd": odd}) for odd in (0, 1)] == [400_000, 400_000]
            files = warehouse.parts_of("keys")
            written.append([path.read_bytes() for path in files])
        assert warehouse.connection.execute("SELECT current_setting('preserve_insertion_order')").fetchall() == [
            (False,)
        ]
        assert warehouse.count("keys") == 800_000
    assert written[0] == written[1]
    for odd, path in enumerate(files):
        part = pq.read_table(path)
        assert set(part["value"].to_numpy() % 2) == {odd}
        assert np.all(np.diff(part["key"].to_numpy().astype(np.float64)) >= 0)


def test_parts_that_fail_leave_the_former_ones(tmp_path, own_sql):
    (own_sql / "ratios.sql").write_text(
        "SELECT CASE WHEN $of = 0 THEN error('in between') ELSE $of END AS ratio ORDER BY 1"
    )

    def write_all(warehouse, values):
        with warehouse.parts("ratios") as write:
            for value in values:
                write({"of": value})

    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        write_all(warehouse, [7])
        with pytest.raises(Exception, match="in between"):
            write_all(warehouse, [8, 0])
        assert warehouse.query("SELECT ratio::INTEGER AS ratio FROM ratios").to_pylist() == [{"ratio": 7}]
    assert [path.name for path in (tmp_path / "marts").iterdir()] == ["ratios.parquet"]


@pytest.mark.parametrize("name", ["a; DROP TABLE b", "A", "a1", "", "a-b", 'a"b'])
def test_only_plain_names_stand_in_statements(name):
    with pytest.raises(ValueError, match="no table or column name"):
        identifier(name)


def test_any_name_and_any_text_can_be_asked_for():
    name = """a "b" 'c'; DROP TABLE input; --"""
    with connect() as connection:
        connection.execute(f"CREATE TABLE input AS SELECT {literal(name)} AS {quoted(name)}")
        assert connection.execute(f"SELECT {quoted(name)} FROM input").fetchall() == [(name,)]  # noqa: S608


def test_every_select_starts_with_a_header_comment_and_is_one_statement():
    for path in SQL.rglob("*/*.sql"):
        text = read_sql(str(path.relative_to(SQL).with_suffix("")))
        assert text.startswith("-- "), path
        assert [statement.type for statement in duckdb.extract_statements(text)] == [duckdb.StatementType.SELECT], path


def test_what_is_asked_of_it_is_all_that_it_prints(tmp_path):
    """DuckDB draws a bar for queries beyond two seconds, to the standard output, in a terminal or not."""
    with Warehouse(tmp_path / "warehouse.duckdb") as warehouse:
        assert warehouse.query("SELECT current_setting('enable_progress_bar') AS bar").to_pylist() == [{"bar": False}]
