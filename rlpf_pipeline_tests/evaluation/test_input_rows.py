import gzip
import json
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.input_rows import load_rows


def loaded(path: Path, content: str | bytes) -> tuple[list[str], list[tuple[object, ...]]]:
    """Column names and rows, in order."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with duckdb.connect() as connection:
        load_rows(connection, path)
        names = [str(name) for name, *_ in connection.execute("DESCRIBE input").fetchall()]
        return names, connection.execute("FROM input ORDER BY rowid").fetchall()


def test_csv_stays_as_it_stands(tmp_path: Path) -> None:
    content = '\ufeffId,"Text, here"\n007,"He said ""yes"""\n1e3,\n# 9,"two\nlines"\n'
    names, rows = loaded(tmp_path / "a.csv", content)
    assert names == ["Id", "Text, here"]
    assert rows == [("007", 'He said "yes"'), ("1e3", None), ("# 9", "two\nlines")]


def test_tsv_and_gzip(tmp_path: Path) -> None:
    assert loaded(tmp_path / "a.tsv.gz", gzip.compress(b"a\tb\n1, 2\tx\n")) == (["a", "b"], [("1, 2", "x")])


def test_semicolons_stand_between_fields_where_no_comma_does(tmp_path: Path) -> None:
    assert loaded(tmp_path / "a.csv", "a;b\n1,5;x\n") == (["a", "b"], [("1,5", "x")])
    assert loaded(tmp_path / "a.csv", "text\nnow; or never\n") == (["text"], [("now; or never",)])


def test_strings_of_json_stay_strings(tmp_path: Path) -> None:
    content = '{"day": "2024-05-01", "n": 3, "text": "42"}\n{"day": "2024-05-02", "text": "x", "tags": ["a"]}\n'
    names, rows = loaded(tmp_path / "a.jsonl", content)
    assert names == ["day", "n", "text", "tags"]
    assert rows == [("2024-05-01", 3, "42", None), ("2024-05-02", None, "x", ["a"])]


def test_strings_within_json_stay_strings_however_deep(tmp_path: Path) -> None:
    day, moment, number = "2024-05-01", "2024-05-01T12:00:00+02:00", "123e4567-e89b-12d3-a456-426614174000"
    nested = {"made": {"at": moment, "days": [day, day], 'odd"name': {"id": number}}, "times": [{"t": "12:00:00"}]}
    names, rows = loaded(tmp_path / "a.jsonl", json.dumps(nested) + "\n")
    assert dict(zip(names, rows[0], strict=True)) == nested
    many = {"by_day": {f"{day}-{number}": day for number in range(300)}}  # seen as a map
    names, rows = loaded(tmp_path / "a.jsonl", json.dumps(many) + "\n")
    assert dict(zip(names, rows[0], strict=True)) == many


@pytest.mark.parametrize("row", [{f"k{i}": "x" for i in range(250)}, {"text": "x"}])
def test_json_of_many_or_of_rare_keys_has_a_column_for_each(tmp_path: Path, row: dict[str, str]) -> None:
    lines = [json.dumps({"text": "Bread", f"rare{number}": "y"} | row) for number in range(30)]
    names, rows = loaded(tmp_path / "a.jsonl", "\n".join(lines))
    assert set(names) == {"text", *row, *(f"rare{number}" for number in range(30))}
    assert [own.count("y") for own in rows] == [1] * 30


def test_parquet_keeps_types(tmp_path: Path) -> None:
    pd.DataFrame({"n": [2, 1], "text": ["b", "a"]}).to_parquet(tmp_path / "a.parquet")
    names, rows = loaded(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert (names, rows) == (["n", "text"], [(2, "b"), (1, "a")])


@pytest.mark.parametrize("names", [["text", "Text"], ["text", "text"], ["text", ""]])
def test_parquet_whose_columns_would_be_renamed_is_refused(names: list[str], tmp_path: Path) -> None:
    pq.write_table(pa.table([["Bread"], ["Cake"]], names=names), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"the column\\(s\\) '{names[1]}', named like another"):
        loaded(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes())


def test_keys_are_told_apart_where_a_column_can_be(tmp_path: Path) -> None:
    names, rows = loaded(tmp_path / "a.jsonl", '{"é": "x", "É": "y", "text_1": "z", "text": "w"}\n')
    assert (names, rows) == (["é", "É", "text_1", "text"], [("x", "y", "z", "w")])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_is_read_as_it_is_whatever_it_and_its_folder_are_called(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "text=other"
    folder.mkdir()
    for name, text in (("ads1", "neighbour"), ("ads[1]", "own")):
        path = folder / f"{name}.{kind}"
        pd.DataFrame({"text": [text]}).to_parquet(path)
        content = {"csv": f"text\n{text}\n", "jsonl": f'{{"text": "{text}"}}', "parquet": path.read_bytes()}[kind]
        assert loaded(path, content) == (["text"], [(text,)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "a,text\n1,x\n2,x,3\n", "CSV Error on Line: 3"),
        ("a.csv", "My export\na,text\n1,x\n", "CSV Error on Line: 2"),
        ("a.csv", b"a,text\n1,caf\xe9\n", "not utf-8"),
        ("a.csv", 'a,text\n1,"x\n', "cannot be read"),
        ("a.csv", "a,text\n", "no row below its header"),
        ("a.csv", "text,text\nx,y\n", "the header names 'text'"),
        ("a.csv", "text,\nx,y\n", "every column needs a name"),
        ("a.csv", "", "is empty"),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', "cannot be read"),
        ("a.jsonl", "{}\n{}\n", r"row 1 is \{\}\. Each row of JSON Lines is an object"),
        ("a.jsonl", "[1, 2]\n[3]\n", r"row 1 is \[1, 2\]\. Each row"),
        ("a.jsonl", '{"text": "x"}\n\n"y"\n', 'row 2 is "y"'),
        ("a.jsonl", "null\n", "row 1 is null"),
        ("a.jsonl", '{"Text": "x"}\n{"text": "y", "n": 1}\n', "differ only in upper and lower case: Text and text"),
        ("a.parquet", "PAR1, not really", "cannot be read"),
        ("a.csv.gz", b"\x1f\x8b\x08 cut off", "cannot be read"),
        ("a.json", '[{"text": "x"}]', "Write it as JSON Lines"),
        ("a.csv", "a,text\n1,x\n".encode("utf-16"), "encoded in UTF-16"),
        ("a.xlsx", "x", "no known ending"),
    ],
)
def test_what_cannot_be_read_is_refused_whole(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        loaded(tmp_path / name, content)
    assert "LINE 1" not in str(refused.value)


def test_a_comma_without_quotes_is_told_without_advice_that_nobody_can_follow(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"Line: 2 .*Hello, world.* a CSV field which holds a delimiter is quoted\."
    ) as told:
        loaded(tmp_path / "a.csv", "text\nHello, world\n")
    assert "strict_mode" not in str(told.value)
