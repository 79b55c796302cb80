"""Every kind of file, whatever it is called and whatever stands beside its texts; what is wrong with a whole file."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.contracts import RAW_MULTITEXT_ADS, REJECTS
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.sources.files import matching
from rlpf_pipeline.sources.ingest import ingest
from rlpf_pipeline_tests.sources.test_ingest import GOOD, HEADER, ingested

ROWS = [
    {"ad_id": "a", "text": 'He said "now"', "impressions": 100, "clicks": 3, "advertiser_id": "x", "unknown": 1.5},
    {
        "ad_id": "a",
        "text": "Cafe\u0301\u00a0 open,\tnow",
        "impressions": 200,
        "clicks": 0,
        "advertiser_id": "x",
        "unknown": 2.5,
    },
]


def as_delimited(delimiter, line_end="\n"):
    lines = [delimiter.join(ROWS[0])]
    lines += [delimiter.join('"' + str(v).replace('"', '""') + '"' for v in row.values()) for row in ROWS]
    return (line_end.join(lines) + line_end).encode()


def as_parquet(folder):
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


JSON_LINES = "\n\n".join(json.dumps(row) for row in ROWS).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", as_delimited(",")),
        ("a.CSV", b"\xef\xbb\xbf" + as_delimited(",", "\r\n")),
        ("a.tsv", as_delimited("\t")),
        ("a.csv", as_delimited(";")),
        ("a.csv", as_delimited("\t", "\r\n")),
        ("a.csv.gz", gzip.compress(as_delimited(","))),
        ("a.jsonl", JSON_LINES),
        ("a.ndjson.gz", gzip.compress(JSON_LINES)),
        ("a.parquet", None),
    ],
)
def test_every_kind_of_file_gives_the_same_rows_of_the_contract(tmp_path, name, content):
    counts, accepted, rejects = ingested(tmp_path, content or as_parquet(tmp_path), name)
    assert counts == (2, 2, 0)
    assert rejects == []
    assert {row["text"] for row in accepted} == {'He said "now"', "Café open, now"}
    assert {(row["source"], row["ad_id"], row["advertiser_id"], row["period"]) for row in accepted} == {
        ("generic", "a", "x", None)
    }
    assert len({row["variant_id"] for row in accepted}) == 2
    types = {"string": "VARCHAR", "int64": "BIGINT"}
    for table, file in ((RAW_MULTITEXT_ADS, "multitext_ads"), (REJECTS, "rejects")):
        schema = pq.read_schema(tmp_path / f"{file}.parquet")
        assert [(f.name, types[str(f.type)]) for f in schema] == [(c.name, c.type) for c in table.columns]


def test_json_lines_that_are_no_objects_are_refused(tmp_path):
    counts, _, rejects = ingested(tmp_path, JSON_LINES + b'\n{"ad_id": \n[1]\n\xff\xfe\n{"ad_id": "a"}\n', "a.jsonl")
    assert counts == (6, 2, 4)
    assert [(r["row_number"], r["reason"]) for r in rejects] == [
        (4, "not valid JSON"),  # line 2 is blank
        (5, "not a JSON object"),
        (6, "not valid UTF-8"),
        (7, "missing text"),
    ]


TRUNCATED = gzip.compress(HEADER + os.urandom(60000).hex().encode())[:20000]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "does not exist"),
        ("empty.csv", b"", "is empty"),
        ("header.csv", HEADER, "no data row"),
        ("columns.csv", b"ad,text,clicks\na,b,1\n", "lacks the column.s. ad_id, impressions. Found: ad, text, clicks"),
        ("keys.jsonl", b'{"ad_id": "a"}\n', "lacks the column.s. text, impressions, clicks. Found: ad_id"),
        ("twice.csv", b"ad_id,text,text,impressions,clicks\n", "names text more than once"),
        ("excel.csv", (HEADER + GOOD).decode().encode("utf-16"), "encoded in UTF-16"),
        ("excel.jsonl", '{"ad_id": "a"}'.encode("utf-16"), "encoded in UTF-16"),
        ("excel.json.gz", gzip.compress("[]".encode("utf-16"), mtime=0), "encoded in UTF-16"),
        ("ads.xlsx", b"x", "no known ending"),
        ("cut.csv.gz", TRUNCATED, "cannot be read"),
        ("plain.csv.gz", HEADER + GOOD, "cannot be read"),
        ("no.parquet", b"PAR1", "cannot be read"),
        ("bad.csv", HEADER + b"a,v,x,0,0,1\n", r"none of the 1 rows can be used: zero impressions \(1\)"),
        ("mixed.csv", HEADER.replace(b"\n", b"\r\n") + GOOD + GOOD, "lines end alike"),
    ],
)
def test_a_fault_of_the_whole_file_is_a_user_error(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        ingest([path], "generic", tmp_path)


@pytest.mark.parametrize("name", ["ads[1].csv", "a?s1.csv", "text=zzz/clicks=7/ads.csv", "ads.CSV.GZ"])
def test_a_file_s_rows_are_its_own_whatever_it_and_its_folders_are_called(tmp_path, name):
    (tmp_path / "ads1.csv").write_bytes(HEADER + b"other,v,Other,100,3,1\n")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    content = HEADER + GOOD
    _, accepted, _ = ingested(tmp_path, gzip.compress(content) if name.endswith("GZ") else content, name)
    assert [(row["ad_id"], row["text"], row["clicks"]) for row in accepted] == [("good", "A text", 3)]
    assert matching([str(tmp_path / name)]) == (tmp_path / name,)


def test_binary_texts_of_parquet_are_texts(tmp_path):
    text = pa.array(["café".encode()], pa.binary())
    pq.write_table(pa.table({"ad_id": ["a"], "text": text, "impressions": [9], "clicks": [1]}), tmp_path / "in.parquet")
    _, accepted, _ = ingested(tmp_path, (tmp_path / "in.parquet").read_bytes(), "ads.parquet")
    assert [row["text"] for row in accepted] == ["café"]


def test_bytes_beside_the_texts_of_parquet_are_kept_with_a_reject(tmp_path):
    """A picture in each row refused the whole file. As the text itself, bytes that are no text are the file's fault."""
    picture = pa.array([b"\xff\xd8\xff\xe0", None], pa.binary())
    rows = {
        "ad_id": ["a", None],
        "text": ["One", "Two"],
        "impressions": [9, 9],
        "clicks": [1, 1],
        'a "picture"': picture,
    }
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    counts, _, (reject,) = ingested(tmp_path, (tmp_path / "in.parquet").read_bytes(), "ads.parquet")
    assert counts == (2, 1, 1)
    assert json.loads(reject["raw_row"])['a "picture"'] is None
    pq.write_table(pa.table(rows | {"text": picture}), tmp_path / "in.parquet")
    with pytest.raises(UserError, match=r"ads\.parquet cannot be read: .*UTF"):
        ingested(tmp_path, (tmp_path / "in.parquet").read_bytes(), "ads.parquet")


@pytest.mark.parametrize("name", ["ads.csv", "ads.parquet"])
def test_a_column_called_row_is_one_like_others(tmp_path, name):
    """DuckDB took it for the row itself, so that all rows were refused as missing a text."""
    row = {"ROW": "1", "row_": "x", "ad_id": "a", "text": "One", "impressions": "9", "clicks": "1"}
    (tmp_path / "in.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "in.parquet")
    counts, accepted, _ = ingested(tmp_path, (tmp_path / f"in{name[3:]}").read_bytes(), name)
    assert counts == (1, 1, 0)
    assert (accepted[0]["ad_id"], accepted[0]["text"]) == ("a", "One")


@pytest.mark.parametrize(
    "content",
    [
        b'ad_id,text,impressions,clicks,"Cost\n(EUR)"\r\nb,One,9,1,2\r\n',
        b"sep=,\nad_id,text,impressions,clicks\r\nb,One,9,1\r\n",
        b"Report\r\nad_id,text,impressions,clicks\nb,One,9,1\n",
        b"Report\n\n\nad_id,text,impressions,clicks\rb,One,9,1\r",
    ],
)
def test_a_file_whose_header_ends_otherwise_than_its_rows_does_not_vanish_beside_another(tmp_path, content):
    """DuckDB finds no row in it. Excel writes a break in a column's name so."""
    (tmp_path / "april.csv").write_bytes(HEADER + GOOD)
    (tmp_path / "march.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"march\.csv: the header, or a title line above it, ends otherwise"):
        ingest([tmp_path / "april.csv", tmp_path / "march.csv"], "generic", tmp_path)


def test_a_file_without_rows_beside_another_is_fine(tmp_path):
    (tmp_path / "april.csv").write_bytes(HEADER + GOOD)
    (tmp_path / "none.csv").write_bytes(HEADER + b"\n\n")
    assert ingest([tmp_path / "april.csv", tmp_path / "none.csv"], "generic", tmp_path) == (1, 1, 0)


def test_a_long_text_near_the_top_does_not_refuse_the_file(tmp_path):
    counts, *_ = ingested(tmp_path, HEADER + b"a,v," + b"long " * 30_000 + b",100,3,1\n" + GOOD)
    assert counts == (2, 2, 0)
