"""Damaged files: every mutation ends in counts that add up or in a UserError, never in a crash or a row lost."""

import gzip
import json
import random
import re
from collections import Counter

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.sources.files import CREATE_SOURCE_ROWS, read_file
from rlpf_pipeline.sources.ingest import ingest
from rlpf_pipeline.sources.source_format import one_of

ROWS = [
    {"ad_id": f"ad{n // 3}", "text": f'Text, "quoted" {n} ünïcode\u2028', "impressions": 100 + n, "clicks": n}
    for n in range(12)
]


def quoted(value):
    return '"' + str(value).replace('"', '""') + '"'


VALID = {
    "ads.csv": "\n".join([",".join(ROWS[0]), *(",".join(quoted(v) for v in row.values()) for row in ROWS)]) + "\n",
    "ads.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "ads.json": json.dumps(ROWS, ensure_ascii=False, indent=1),
}


def mutated(content, rng):
    """One to four edits: bytes exchanged, removed, put in or doubled, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        edit = rng.randrange(6)
        if edit == 0:
            data[at] = rng.randrange(256)
        elif edit == 1:
            del data[at : at + rng.randint(1, 8)]
        elif edit == 2:
            data[at:at] = rng.choice([b'"', b",", b"\n", b"\r", b"\x00", b"\xff", b"{", b"]", b"-", b"1e9", b"\\"])
        elif edit == 3:
            data[at:at] = data[at : at + rng.randint(1, 40)]
        elif edit == 4:
            data = data[: max(at, 1)]
        else:
            data[at : at + 1] = b"\xc3"
    return bytes(data)


def ingest_damaged(folder, name, seeds):
    path = folder / name
    outcomes = {"counted": 0, "refused": 0}
    for seed in seeds:
        path.write_bytes(mutated(VALID[name].encode(), random.Random(seed)) or b" ")
        try:
            counts = ingest([path], "generic", folder)
        except UserError:
            outcomes["refused"] += 1
            continue
        outcomes["counted"] += 1
        rejects = pq.read_table(folder / "rejects.parquet")
        assert counts.read == counts.accepted + counts.rejected, seed
        assert rejects.num_rows == counts.rejected, seed
        assert None not in rejects["reason"].to_pylist(), seed
    return outcomes


@pytest.mark.parametrize("name", VALID)
def test_damaged_files_never_crash_and_lose_no_row(tmp_path, name):
    outcomes = ingest_damaged(tmp_path, name, range(40))
    assert outcomes["refused"] > 0
    assert outcomes["counted"] > 0 or name == "ads.json"


@pytest.mark.slow
@pytest.mark.parametrize("name", VALID)
def test_a_thousand_damaged_files(tmp_path, name):
    outcomes = ingest_damaged(tmp_path, name, range(40, 1040))
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize("name", ["ads.csv", "ads.jsonl"])
def test_lines_damaged_one_by_one_leave_all_others_as_they_were(tmp_path, name):
    """Each line in turn gets an invalid byte in its text: that row is refused by number, and no other."""
    lines = VALID[name].encode().split(b"\n")
    header = 1 if name == "ads.csv" else 0
    for row in range(len(ROWS)):
        damaged = lines.copy()
        damaged[row + header] = damaged[row + header].replace(b"Text", b"T\xff\xfext")
        (tmp_path / name).write_bytes(b"\n".join(damaged))
        counts = ingest([tmp_path / name], "generic", tmp_path)
        (reject,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
        assert (counts.read, counts.accepted, reject["row_number"]) == (12, 11, row + 1)


def rows_of_file(path):
    """The values of each row that was parsed, and the text of each that was not."""
    with duckdb.connect() as connection:
        connection.execute(CREATE_SOURCE_ROWS)
        read_file(connection, path, 0, (one_of("ad_id"),))
        rows = connection.execute("SELECT raw_row, problem FROM source_rows ORDER BY position").fetchall()
    parsed = [list(json.loads(row).values()) for row, problem in rows if problem is None]
    return parsed, [row for row, problem in rows if problem is not None]


def characters(text):
    """How often each occurs, but for those that quote and part values."""
    return Counter(re.sub(r'[",\r\n]', "", text))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_character_of_a_damaged_csv_stands_in_a_row_and_no_parsed_row_in_a_reject(tmp_path, line_end):
    path = tmp_path / "ads.csv"
    for seed in (*range(40), 56, 97, 146, 220, 225, 248, 288):
        path.write_bytes(mutated(VALID["ads.csv"].replace("\n", line_end).encode(), random.Random(seed)))
        try:
            parsed, refused = rows_of_file(path)
        except UserError:
            continue
        content = path.read_bytes().decode(errors="replace")
        values = "".join(value or "" for row in parsed for value in row)
        lost = characters(content.partition("\n")[2]) - characters(values + "".join(refused))
        assert not lost, seed
        assert all(text and text in content for text in refused), seed
        lines = {",".join(quoted(value) for value in row) for row in parsed}
        assert not lines & {line.strip("\r") for text in refused for line in text.split("\n")}, seed


BEFORE = '"a","two\nlines","100","3"\n'
TWO_FAULTS = '"b","Te"xt, ""q"" 8","107","8"'
SHARED_LINE = '"b","two\nlines","r"x"y","s'


@pytest.mark.parametrize(
    ("damaged", "refused"),
    [
        (TWO_FAULTS, TWO_FAULTS),
        ('"b","two\nlines"x,"107","8"', '"b","two\nlines"x,"107","8"'),
        ('"b","two\nlines","107"', '"b","two\nlines","107"'),
        (b'"b","Caf\xe9s","107","8"', '"b","Caf\ufffds","107","8"'),
        (SHARED_LINE, SHARED_LINE),
    ],
)
@pytest.mark.parametrize("before", ["", BEFORE, TWO_FAULTS + "\n"])
@pytest.mark.parametrize("form", ["plain", "gz", "zst", "titles", "mark", "returns"])
def test_a_refused_row_is_kept_as_it_stands_in_the_file(tmp_path, form, before, damaged, refused):
    damaged = damaged if isinstance(damaged, bytes) else damaged.encode()
    content = ",".join(ROWS[0]).encode() + b"\n" + before.encode() + damaged + b'\n"c","x","100","3"\n'
    path = tmp_path / {"gz": "ads.csv.gz", "zst": "ads.csv.zst"}.get(form, "ads.csv")
    written = {
        "plain": content,
        "gz": gzip.compress(content),
        "zst": pa.Codec("zstd").compress(content, asbytes=True),
        "titles": b'Report\n"March 1, 2025"\n' + content,
        "mark": b"\xef\xbb\xbf" + content,
        "returns": content.replace(b"\n", b"\r\n"),
    }
    path.write_bytes(written[form])
    _, rows = rows_of_file(path)
    assert rows[-1].replace("\r\n", "\n") == refused


LINES = [f"a{n},Text ünïcode {n},100,3\n" for n in range(2000)]
LATER = "".join(LINES[1000:])


@pytest.mark.parametrize(
    ("closing", "refused_lines"),
    [
        ("", 2001),
        ('c,"",100,3\n', 2002),
        ('c,"quoted, text",100,3\n', 1002),
        ('c,text,100,5"\n', 1002),
        ('c,text",100,5,6,7\n', 1002),
        ('c,text",100,"' + "".join(LINES[:500]) + '"x\n', 1502),
    ],
)
@pytest.mark.parametrize("before", ["", BEFORE])
def test_lines_that_an_open_quote_takes_along_are_kept_and_counted(tmp_path, before, closing, refused_lines):
    """DuckDB tells 10,000 bytes of a record, fewer than these have."""
    head = ",".join(ROWS[0]) + "\n" + before + "d,Good,100,3\n"
    damaged = 'b,"open text,100,3\n' + "".join(LINES[:1000]) + closing
    (tmp_path / "ads.csv").write_text(head + damaged + LATER)
    counts = ingest([tmp_path / "ads.csv"], "generic", tmp_path)
    (reject,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    assert (damaged + LATER).startswith(reject["raw_row"])
    assert reject["raw_row"].count("\n") + 1 == refused_lines
    assert counts.accepted == 1 + bool(before) + (damaged + LATER).count("\n") - refused_lines
    first = head.count("\n") + 1
    assert f"; lines {first} to {first + refused_lines - 1} of the file" in reject["reason"]
