import subprocess
import sys
import time

import duckdb
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.warehouse import SQL, Warehouse, identifier, read_sql

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


def test_a_failing_select_leaves_the_former_table(tmp_path):
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        warehouse.connection.execute("CREATE TABLE raw_multitext_ads AS SELECT 'former' AS ad_id")
        with pytest.raises(Exception, match="No files found"):
            warehouse.run_sql("staging/raw_multitext_ads", {"path": str(tmp_path / "missing.parquet")})
        assert warehouse.query("FROM raw_multitext_ads").to_pylist() == [{"ad_id": "former"}]


def test_export_writes_the_same_bytes_for_the_same_rows_in_another_order(tmp_path):
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        warehouse.connection.execute("CREATE TABLE forth AS SELECT i AS key, hash(i) AS value FROM range(200000) t(i)")
        warehouse.connection.execute("CREATE TABLE back AS FROM forth ORDER BY value")
        for table in ("forth", "back"):
            assert warehouse.export(table, tmp_path / f"{table}.parquet", ("key",)) == 200000
    assert (tmp_path / "forth.parquet").read_bytes() == (tmp_path / "back.parquet").read_bytes()


@pytest.mark.parametrize("name", ["a; DROP TABLE b", "A", "a1", "", "a-b", 'a"b'])
def test_only_plain_names_stand_in_statements(name):
    with pytest.raises(ValueError, match="no table or column name"):
        identifier(name)


def test_every_select_starts_with_a_header_comment_and_is_one_statement():
    for path in SQL.rglob("*/*.sql"):
        text = read_sql(str(path.relative_to(SQL).with_suffix("")))
        assert text.startswith("-- "), path
        assert [statement.type for statement in duckdb.extract_statements(text)] == [duckdb.StatementType.SELECT], path
