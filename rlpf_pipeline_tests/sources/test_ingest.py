import csv
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.sources import ingest as module
from rlpf_pipeline.sources.ingest import ingest
from rlpf_pipeline.warehouse import Warehouse

HEADER = b"ad_id,variant_id,text,impressions,clicks,period\n"
GOOD = b"good,v,A text,100,3,1\n"
UPWORTHY_HEADER = (
    "index,clickability_test_id,headline,lede,excerpt,impressions,clicks,significance,test_week,eyecatcher_id\n"
)


def ingested(tmp_path, content, name="ads.csv", source="generic"):
    path = tmp_path / name
    path.write_bytes(content)
    counts = ingest([path], source, tmp_path)
    return counts, *(pq.read_table(tmp_path / f"{file}.parquet").to_pylist() for file in ("multitext_ads", "rejects"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"a,v, ,100,3,1", "missing text"),
        (b",v,x,100,3,1", "missing ad_id"),
        (b"1.2021E+17,v,x,100,3,1", "ad_id is a rounded number: format the column as text before the file is saved"),
        (b"1E+11,v,x,100,3,1", "ad_id is a rounded number: format the column as text before the file is saved"),
        (
            b"120210000000000020.0,v,x,9,3,1",
            "ad_id is a rounded number: format the column as text before the file is saved",
        ),
        (b"nan,v,x,100,3,1", "missing ad_id"),
        (b"NA,v,x,100,3,1", "missing ad_id"),
        (b" None ,v,x,100,3,1", "missing ad_id"),
        (b"a,v,x,many,3,1", "impressions is not a whole number"),
        (b"a,v,x,3.7,3,1", "impressions is not a whole number"),
        (b"a,v,x,3.000,3,1", "impressions is not a whole number"),
        (b"a,v,x,2000000000000,3,1", "too large for a count"),
        (b"a,v,x,100,,1", "clicks is not a whole number"),
        (b"a,v,x,99999999999999999999,3,1", "impressions is not a whole number"),
        (b"a,v,x,100,-3,1", "negative count"),
        (b"a,v,x,0,0,1", "zero impressions"),
        (b"a,v,x,100,101,1", "more clicks than impressions"),
        (b"good,v,A  text,200,5,1", "duplicate variant: same ad, text and period as row 1"),
        (b"good,v,Other,200,5,2", "variant_id used for another text of this ad: row 1"),
        (b"a,v,\xff\xfe,100,3,1", "not valid UTF-8"),
        (b"a,v,x,100,3,1,more,still more", "malformed row: more fields than the header"),
        (b"a,v,x", "malformed row: fewer fields than the header"),
        (b'a,v,"un"closed,100,3,1', "malformed row: a quote is not closed or not doubled"),
        (b", , ,bad,-1,1", "missing text"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason_and_number_and_the_others_survive(tmp_path, row, reason):
    counts, accepted, rejects = ingested(tmp_path, HEADER + GOOD + row + b'\nlast,v,"two\nlines",100.0,3,1\n')
    assert counts == (3, 2, 1)
    assert [(a["ad_id"], a["text"], a["impressions"]) for a in accepted] == [
        ("good", "A text", 100),
        ("last", "two lines", 100),
    ]
    assert [(r["row_number"], r["reason"]) for r in rejects] == [(2, reason)]
    assert rejects[0]["source_file"] == str(tmp_path / "ads.csv")
    assert rejects[0]["raw_row"]


@pytest.mark.parametrize("word", [b"NA", b"n/a", b"NULL", b"None", b"nan", b""])
def test_a_word_for_no_id_is_none(tmp_path, word):
    """As an id it would make one advertiser of all ads without, and duplicates of an ad's texts."""
    header = b"ad_id,variant_id,text,impressions,clicks,advertiser_id\n"
    rows = b"".join(b"ad%d,%s,text %d,100,3,%s\n" % (number // 2, word, number, word) for number in range(4))
    _, accepted, rejects = ingested(tmp_path, header + rows + b"ad9,Nan1,x,100,3,Nona\n")
    assert (accepted[-1]["variant_id"], accepted[-1]["advertiser_id"]) == ("Nan1", "Nona")
    accepted = accepted[:-1]
    assert not rejects
    assert len({row["variant_id"] for row in accepted}) == 4
    assert {row["advertiser_id"] for row in accepted} == {None}


def test_row_numbers_count_refused_rows_and_quoted_line_breaks_once(tmp_path):
    rows = [
        b'a,v,"two\nlines",9,1,1\n',
        b"too,few\n",
        b"\xff,v,x,9,1,1\n",
        b"b,v,x,9,1,1\n",
        b"c,v,x,9,10,1\n",
        b"too,few\n",
        b"d,v,x,9,10,1",
    ]
    counts, _, rejects = ingested(tmp_path, HEADER + b"".join(rows))
    assert counts == (7, 2, 5)
    assert [reject["row_number"] for reject in rejects] == [2, 3, 5, 6, 7]


def test_blank_lines_are_no_rows_and_beside_a_malformed_row_numbers_are_left_out(tmp_path):
    # The parser counts blank lines before a malformed row but not before a good one, so no number would be right.
    rows = GOOD + b"\na,v,x,9,10,1\n\n" + GOOD
    counts, _, rejects = ingested(tmp_path, HEADER + rows)
    assert counts == (3, 1, 2)
    assert [reject["row_number"] for reject in rejects] == [2, 3]
    counts, _, rejects = ingested(tmp_path, HEADER + rows + b"too,few\n")
    assert counts == (4, 1, 3)
    assert [reject["row_number"] for reject in rejects] == [None, None, None]
    assert {reject["reason"] for reject in rejects} == {
        "more clicks than impressions",
        "duplicate variant: same ad, text and period as an earlier row",
        "malformed row: fewer fields than the header",
    }


def test_a_variant_may_occur_in_several_periods_and_of_several_files_the_last_counts(tmp_path):
    """A day that was exported before its end is exported again: of one file the first row counts."""
    files = [tmp_path / f"{number}.csv" for number in (3, 1, 2)]
    for file, day in zip(files, (b"40,1,d1\n", b"90,2,d1\n", b"100,3,d1\ngood,v,A text,999,9,d1\n"), strict=True):
        file.write_bytes(HEADER + b"good,v,A text," + day)
    with files[0].open("ab") as first:
        first.write(b"good,v,A text,200,5,d0\n")
    assert ingest(files, "generic", tmp_path) == (5, 2, 3)
    accepted = pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()
    assert {(row["period"], row["impressions"], row["clicks"]) for row in accepted} == {("d0", 200, 5), ("d1", 100, 3)}
    rejects = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    same = "duplicate variant: same ad, text and period as row 1"
    assert {(row["source_file"], row["row_number"]): row["reason"] for row in rejects} == {
        (str(files[0]), 1): f"{same} of {files[2]}",
        (str(files[1]), 1): f"{same} of {files[2]}",
        (str(files[2]), 2): same,
    }


def test_a_total_is_not_added_to_the_days_that_it_holds(tmp_path):
    """A text's row without a period beside its days; one whose other texts alone have days stays."""
    (tmp_path / "total.csv").write_bytes(b"ad_id,text,impressions,clicks\na,One,1000,10\na,Two,1000,10\nb,One,500,5\n")
    (tmp_path / "day.csv").write_bytes(HEADER + b"a,1,One,100,1,2024-03-01\na,1,One,200,2,2024-03-02\n")
    assert ingest([tmp_path / "total.csv", tmp_path / "day.csv"], "generic", tmp_path) == (5, 4, 1)
    accepted = pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()
    assert sorted((row["ad_id"], row["text"], row["impressions"]) for row in accepted) == [
        ("a", "One", 100),
        ("a", "One", 200),
        ("a", "Two", 1000),
        ("b", "One", 500),
    ]
    (reject,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    assert reject["reason"] == "no period, which other rows of the same ad and text have"


def test_an_id_that_several_sources_use_is_an_ad_of_each(tmp_path):
    header = b"source,ad_id,variant_id,text,impressions,clicks\n"
    rows = b"x,7,v,Of x,100,3\ny,7,v,Of y,200,4\nx,8,v,Alone,300,5\ny,8,v,,1,0\n"
    both = b"x,7,w,Of both,100,1\ny,7,w,Of both,100,1\n"
    counts, accepted, rejects = ingested(tmp_path, header + rows + both)
    assert counts == (6, 5, 1)
    assert [(row["source"], row["ad_id"], row["text"], row["impressions"]) for row in accepted] == [
        ("x", "8", "Alone", 300),  # the other 8 is refused
        ("x", "x:7", "Of x", 100),
        ("x", "x:7", "Of both", 100),
        ("y", "y:7", "Of y", 200),
        ("y", "y:7", "Of both", 100),
    ]
    assert [row["reason"] for row in rejects] == ["missing text"]


def test_an_id_that_several_advertisers_use_is_an_ad_of_each(tmp_path):
    """Their texts were one ad's, and paired. A row that lacks its advertiser may be anybody's."""
    header = b"ad_id,advertiser_id,text,impressions,clicks\n"
    rows = b"1,acme,Buy bread,9,3\n1,acme,Fresh bread,9,2\n1,zeta,Buy a car,9,1\n1,,Buy now,9,1\n"
    counts, accepted, _ = ingested(tmp_path, header + rows + b"2,acme,Cake,9,1\n2,,Pie,9,1\n")
    assert counts == (6, 6, 0)
    assert sorted((row["ad_id"], row["text"]) for row in accepted) == [
        ("1", "Buy now"),
        ("2", "Cake"),
        ("2", "Pie"),
        ("acme:1", "Buy bread"),
        ("acme:1", "Fresh bread"),
        ("zeta:1", "Buy a car"),
    ]


def test_a_text_does_not_end_at_a_nul(tmp_path):
    """DuckDB's normalisation did where a letter was not of ASCII: two texts became one."""
    texts = ["Caf\u00e9\0open today", "Caf\u00e9\0\0closed on Monday", "Plain\0text"]
    lines = [json.dumps({"ad_id": "a", "text": text, "impressions": 9, "clicks": 1}) for text in texts]
    _, accepted, _ = ingested(tmp_path, "\n".join(lines).encode(), "a.jsonl")
    assert {row["text"] for row in accepted} == {"Caf\u00e9 open today", "Caf\u00e9 closed on Monday", "Plain text"}


def test_all_white_space_is_collapsed(tmp_path):
    white = "".join(chr(code) for code in range(0x110000) if chr(code).isspace())
    row = {"ad_id": "a", "text": f"{white}Buy{'x'.join(white)}now{white}", "impressions": 100, "clicks": 3}
    _, accepted, _ = ingested(tmp_path, json.dumps(row).encode(), "a.jsonl")
    assert [a["text"] for a in accepted] == [" ".join(row["text"].split())]


GENERIC_TWINS = "ad_id,text,impressions,clicks\na,Buy now,100,1\na,Buy  now,200,5\na,Buy now,100,1\n"
MANAGER_TWINS = (
    "Ad ID,Body text,Impressions,Link clicks,Reporting starts,Reporting ends\n"
    "a,Caf\u00e9,100,1,2024-03-01,2024-03-31\na,Cafe\u0301,200,5,2024-03-01,2024-03-31\n"
    "a,Caf\u00e9,100,1,2024-03-01,2024-03-31\n"
)
GOOGLE_TWINS = (
    "Ad group ID,Ad ID,Asset,Asset type,Impr.,Clicks\n5,a,Buy now,Headline,100,1\n5,a,Buy\u00a0now,Headline,200,5\n"
    "5,a,Buy now,Headline,100,1\n"
)


@pytest.mark.parametrize(
    ("source", "content"), [("generic", GENERIC_TWINS), ("meta-ads", MANAGER_TWINS), ("google-ads", GOOGLE_TWINS)]
)
def test_texts_equal_only_when_normalised_are_one_variant_with_both_counts(tmp_path, source, content):
    counts, _, rejects = ingested(tmp_path, content.encode(), source=source)
    assert counts == (3, 2, 1)
    assert rejects[0]["reason"] == "duplicate variant: same ad, text and period as row 1"
    with Warehouse(tmp_path / "w.duckdb") as warehouse:
        warehouse.replace_table("raw_multitext_ads", pq.read_table(tmp_path / "multitext_ads.parquet"))
        warehouse.replace_table(
            "ads", warehouse.query("SELECT DISTINCT 0 AS ad, ad_id, 'train' AS split FROM raw_multitext_ads")
        )
        with warehouse.parts("marts/variants") as write:
            write({"first_id": "", "last_id": "z", "first_variant": 0})
        (variant,) = warehouse.query("FROM variants").to_pylist()
    assert (variant["impressions"], variant["clicks"]) == (100 + 200, 1 + 5)


def test_folders_unknown_formats_and_no_files_are_user_errors(tmp_path):
    for files, source, message in (
        ([tmp_path], "generic", "is a folder"),
        ([tmp_path], "excel", "Unknown format"),
        ([], "generic", "No file"),
    ):
        with pytest.raises(UserError, match=message):
            ingest(files, source, tmp_path)


def test_upworthy_arms_of_one_image_and_story_are_one_ad(tmp_path):
    lede = '"<p>Fish &amp; <em>chi</em>ps<br>cost &lt;&#163;5&nbsp; &#8212; <3</p>"'
    rows = f"""0,t1,One,{lede},E,100,3,9.1,201324,img
1,t1,Two,{lede},E,100,4,9.2,201324,img
2,t1,Two,{lede},E,100,4,9.3,201324,img
3,t1,Two,{lede},E,100,4,9.3,201324,img
4,t1,Two,{lede},E,100,5,9.4,201324,other
5,t1,In June,{lede},E,100,5,9.4,201325,img
6,t1,In January,{lede},E,100,5,9.4,201401,img
7,t1,After,<p></p>,Excerpt,100,5,9.4,201402,img
"""
    counts, accepted, rejects = ingested(tmp_path, (UPWORTHY_HEADER + rows).encode(), source="upworthy")
    assert counts == (8, 5, 3)
    assert [(r["row_number"], r["reason"].split(" (")[0]) for r in rejects] == [
        (4, "duplicate variant: same ad, text and period as row 3"),
        (6, "test in a week of broken randomisation"),
        (7, "test in a week of broken randomisation"),
    ]
    texts = {}
    for row in accepted:
        texts.setdefault(row["ad_id"], []).append(row["text"])
    assert sorted(sorted(ad) for ad in texts.values()) == [["After"], ["One", "Two", "Two"], ["Two"]]
    assert {row["context"] for row in accepted} == {"Fish & chips cost <£5 — <3", "Excerpt"}


@pytest.mark.skipif("RLPF_UPWORTHY" not in os.environ, reason="RLPF_UPWORTHY names the archive's packages.csv")
def test_the_archive_is_read_whole(tmp_path):
    path = Path(os.environ["RLPF_UPWORTHY"])
    with path.open(newline="", encoding="utf-8") as file:
        records = sum(1 for _ in csv.reader(file)) - 1
    counts = ingest([path], "upworthy", tmp_path)
    assert counts.read == records
    assert counts.accepted > 0.75 * records


def test_what_memory_does_not_hold_is_spilled_beside_the_output_and_nothing_changes(tmp_path, monkeypatch):
    rows = pa.table({"ad_id": [f"ad{n // 3}" for n in range(100_000)], "text": [f"{n:050}" for n in range(100_000)]})
    rows = rows.append_column("impressions", pa.array([100] * 100_000)).append_column("clicks", pa.array([1] * 100_000))
    pq.write_table(rows, tmp_path / "ads.parquet")
    written = []
    for limit in ("3600MB", "90MB"):
        monkeypatch.setattr(module, "MEMORY_LIMIT", limit)
        folder = tmp_path / limit
        folder.mkdir()
        assert ingest([tmp_path / "ads.parquet"], "generic", folder) == (100_000, 100_000, 0)
        assert {path.name for path in folder.iterdir()} == {"multitext_ads.parquet", "rejects.parquet"}
        written.append((folder / "multitext_ads.parquet").read_bytes())
    assert written[0] == written[1]


def test_a_row_is_no_duplicate_of_one_whose_text_is_refused(tmp_path):
    rows = b"a,v,One,100,1,p1\na,v,Two,200,2,p2\na,v,One,300,3,p2\na,v,One,400,4,p2\n"
    _, accepted, rejects = ingested(tmp_path, HEADER + rows)
    assert [(row["text"], row["impressions"]) for row in accepted] == [("One", 100), ("One", 300)]
    assert [(r["row_number"], r["reason"]) for r in rejects] == [
        (2, "variant_id used for another text of this ad: row 1"),
        (4, "duplicate variant: same ad, text and period as row 3"),
    ]


def test_what_ingest_is_at_is_told(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_bytes(HEADER + GOOD.replace(b"good", name.encode()))
    heard: list[str] = []
    ingest([tmp_path / "a.csv", tmp_path / "b.csv"], "generic", tmp_path, on_progress=heard.append)
    assert heard == ["reading a.csv, 1 of 2", "reading b.csv, 2 of 2", "judging rows", "writing"]
