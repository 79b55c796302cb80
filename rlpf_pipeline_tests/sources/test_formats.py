"""Files of any shape: column maps, ids, names; what is truncated or missing; patterns."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.sources.files import matching
from rlpf_pipeline.sources.generic import read_column_map
from rlpf_pipeline.sources.ingest import ingest
from rlpf_pipeline_tests.sources.ingesting import ingested

COLUMN_MAP = "ad_id: campaign\ntext: Headline\nimpressions: shown\nclicks: clicked\n"


def column_map(tmp_path, text=COLUMN_MAP):
    (tmp_path / "map.yaml").write_text(text)
    return read_column_map(tmp_path / "map.yaml")


@pytest.mark.parametrize("name", ["ads.csv", "ads.tsv.zst", "ads.jsonl", "ads.parquet"])
def test_a_column_map_renames_the_columns_of_any_file(tmp_path, name):
    rows = [{"campaign": "a", "Headline": f"Text {n}", "shown": 100 + n, "clicked": n} for n in range(3)]
    if name == "ads.parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        content = (tmp_path / name).read_bytes()
    elif name == "ads.jsonl":
        content = "\n".join(json.dumps(row) for row in rows)
    else:
        lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        content = "\n".join(("," if name == "ads.csv" else "\t").join(line) for line in lines) + "\n"
    if name.endswith(".zst"):
        content = pa.Codec("zstd").compress(content.encode(), asbytes=True)
    accepted, _ = ingested(tmp_path, name, content, "generic", columns=column_map(tmp_path))
    assert [(r["ad_id"], r["text"], r["impressions"], r["clicks"]) for r in accepted] == [
        ("a", "Text 0", 100, 0),
        ("a", "Text 1", 101, 1),
        ("a", "Text 2", 102, 2),
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_ids_that_are_floats_where_some_are_missing_are_those_of_other_files(tmp_path, kind):
    """120.0 is the ad 120, and not another one; its first day is in both files, and counts once."""
    ids = {"ad_id": [120, 120, 121], "advertiser_id": [7, 7, 8], "variant_id": [1, 2, 1]}
    counts = {"impressions": [100, 90, 80], "clicks": [3, 2, 1], "text": ["Fresh bread", "Warm rolls", "Cold milk"]}
    complete = pa.table(ids | counts | {"period": ["2024-03-01"] * 3})
    floats = {name: pa.array([*map(float, values[:2]), values[2]], pa.float64()) for name, values in ids.items()}
    floats["advertiser_id"] = pa.array([7.0, 7.0, float("nan") if kind == "parquet" else None])
    partial = pa.table(floats | counts | {"period": ["2024-03-01", "2024-03-02", "2024-03-02"]})
    paths = [tmp_path / f"{name}.{kind}" for name in ("complete", "partial")]
    for path, table in zip(paths, (complete, partial), strict=True):
        if kind == "parquet":
            pq.write_table(table, path)
        elif kind == "csv":
            table.to_pandas().to_csv(path, index=False)
        else:
            table.to_pandas().to_json(path, orient="records", lines=True)
    assert ingest(paths, "generic", tmp_path) == (6, 5, 1)
    accepted = pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()
    assert {(row["ad_id"], row["advertiser_id"], row["variant_id"]) for row in accepted} == {
        ("120", "7", "1"),
        ("120", "7", "2"),
        ("121", "8", "1"),
        ("121", None, "1"),
    }
    (reject,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    assert reject["reason"].startswith("duplicate variant: same ad, text and period as row 1")


@pytest.mark.parametrize("name", ["ads.csv", "ads.jsonl", "ads.parquet"])
def test_columns_may_have_names_that_look_like_paths_or_are_hard_to_write_small(tmp_path, name):
    """Capital sigma and dotted I: Python and DuckDB do not agree on their small letters."""
    columns = {"ad_id": "ΟΔΟΣ", "text": "İlan", "impressions": "$shown", "clicks": "*", "period": "/a~b"}
    row = {"ΟΔΟΣ": "a", "İlan": "Buy now", "$shown": 100, "*": 7, "/a~b": "2025-03-01"}
    if name == "ads.parquet":
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
        content = (tmp_path / name).read_bytes()
    else:
        lines = [",".join(row), ",".join(map(str, row.values()))]
        content = json.dumps(row) if name == "ads.jsonl" else "\n".join(lines)
    accepted, _ = ingested(tmp_path, name, content, "generic", columns=columns)
    assert [tuple(accepted[0][field] for field in columns)] == [("a", "Buy now", 100, 7, "2025-03-01")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("txt: headline\n", r"unknown field 'txt': is it text\?"),
        ("- text\n", "must hold lines `field: column`"),
        ("text: [a\n", "cannot be read"),
    ],
)
def test_a_wrong_column_map_is_explained(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        column_map(tmp_path, text)


def test_a_mapped_column_that_the_file_lacks_is_named_with_the_nearest(tmp_path):
    content = "campaign,headlines,shown,clicked\na,b,1,1\n"
    with pytest.raises(UserError, match=r"lacks the column\(s\) Headline or headline.*Is it headlines\?"):
        ingested(tmp_path, "ads.csv", content, "generic", columns=column_map(tmp_path))


@pytest.mark.parametrize("name", ["cut.csv.gz", "cut.csv.zst", "cut.json"])
def test_a_truncated_file_is_refused_whole(tmp_path, name):
    lines = "ad_id,text,impressions,clicks\n" + "".join(f"a{n},text {n * n},{n + 1},0\n" for n in range(5000))
    whole = {
        "cut.csv.gz": gzip.compress(lines.encode()),
        "cut.csv.zst": pa.Codec("zstd").compress(lines.encode(), asbytes=True),
        "cut.json": json.dumps([{"ad_id": "a", "text": "t", "impressions": 1, "clicks": 0}] * 50).encode(),
    }[name]
    with pytest.raises(UserError, match=r"cannot be read.*complete"):
        ingested(tmp_path, name, whole[: len(whole) // 2], "generic")


def test_patterns_name_files_in_order_and_an_empty_one_is_an_error(tmp_path):
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in matching([str(tmp_path / "*.csv"), str(tmp_path / "a.csv")])] == ["a.csv", "b.csv"]
    with pytest.raises(UserError, match="No file matches"):
        matching([str(tmp_path / "*.parquet")])


def test_a_pattern_names_no_folders_and_a_folder_is_told_as_that(tmp_path):
    (tmp_path / "old.csv").mkdir()
    (tmp_path / "new.csv").touch()
    (tmp_path / "old.csv" / "a.csv").touch()
    assert [path.name for path in matching([str(tmp_path / "*.csv")])] == ["new.csv"]
    assert [path.name for path in matching([str(tmp_path / "**")])] == ["new.csv", "a.csv"]
    with pytest.raises(UserError, match=r"old\.csv is a folder\. Name the files in it, such as '.*old\.csv/\*\.csv'"):
        matching([str(tmp_path / "old.csv")])


def test_brackets_of_a_folder_s_name_are_told_how_to_write(tmp_path, monkeypatch):
    (tmp_path / "[2025] ads").mkdir()
    (tmp_path / "[2025] ads" / "a.csv").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="No file matches") as raised:
        matching(["[2025] ads/*.csv"])
    assert str(raised.value).endswith("Where brackets are part of a name, write '[[]2025] ads/*.csv'.")
    assert [path.name for path in matching(["[[]2025] ads/*.csv"])] == ["a.csv"]


def test_weeks_of_broken_randomisation_are_kept_on_request(tmp_path):
    header = "clickability_test_id,headline,lede,excerpt,impressions,clicks,test_week,eyecatcher_id\n"
    content = header + "t,One,l,e,100,3,201330,i\nt,Two,l,e,100,3,201330,i\nu,Three,l,e,100,3,201430,i\n"
    accepted, rejects = ingested(tmp_path, "p.csv", content, "upworthy")
    assert (len(accepted), len(rejects)) == (1, 2)
    accepted, rejects = ingested(tmp_path, "p.csv", content, "upworthy", keep_broken_randomisation=True)
    assert (len(accepted), len(rejects)) == (3, 0)
