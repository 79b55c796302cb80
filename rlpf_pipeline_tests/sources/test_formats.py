"""Exports of ad platforms and files of any shape, written here as their makers write them."""

import gzip
import json
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import IngestSettings
from rlpf_pipeline.sources.files import matching
from rlpf_pipeline.sources.generic import read_column_map
from rlpf_pipeline.sources.ingest import ingest


def ingested(tmp_path, name, content, source, **settings):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    ingest([tmp_path / name], source, tmp_path, IngestSettings(**settings))
    accepted = pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()
    rejects = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    return sorted(accepted, key=lambda row: (row["ad_id"], row["text"], row["period"] or "")), rejects


def insight(ad_id, asset, text, impressions, clicks=None, day="2025-03-01", **more):
    row = {"ad_id": ad_id, "account_id": "7", "body_asset": {"id": asset, "text": text}, "impressions": impressions}
    links = {} if clicks is None else {"inline_link_clicks": clicks, "clicks": str(int(clicks) + 5)}
    return {**row, **links, "date_start": day, "date_stop": day, **more}


INSIGHTS = [
    insight("1", "11", "Buy now", "1200", "30"),
    insight("1", "12", "Buy  it today", "1100", "22"),
    insight("1", "11", "Buy now", "900", "9", "2025-03-02"),
    insight("2", "21", "Come in", "400"),
    insight("2", "22", "Come in!", "many", "3"),
]
PAGES = [{"data": INSIGHTS[:3], "paging": {"next": "…"}}, {"data": INSIGHTS[3:]}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", "\n".join(json.dumps(row) for row in INSIGHTS)),
        ("rows.json", json.dumps(INSIGHTS, indent=1)),
        ("page.json", json.dumps({"data": INSIGHTS})),
        ("pages.json", json.dumps(PAGES)),
        ("pages.json.gz", gzip.compress("\n".join(json.dumps(page) for page in PAGES).encode())),
    ],
)
def test_meta_insights_in_every_shape_the_api_gives_them(tmp_path, name, content):
    accepted, rejects = ingested(tmp_path, name, content, "meta-ads")
    columns = ("ad_id", "variant_id", "text", "impressions", "clicks", "period")
    assert [tuple(row[column] for column in columns) for row in accepted] == [
        ("1", "12", "Buy it today", 1100, 22, "2025-03-01"),
        ("1", "11", "Buy now", 1200, 30, "2025-03-01"),
        ("1", "11", "Buy now", 900, 9, "2025-03-02"),
        ("2", "21", "Come in", 400, 0, "2025-03-01"),
    ]
    assert {(row["source"], row["advertiser_id"]) for row in accepted} == {("meta-ads", "7")}
    assert [(row["row_number"], row["reason"]) for row in rejects] == [(5, "impressions is not a whole number")]
    assert json.loads(rejects[0]["raw_row"]) == INSIGHTS[4]


def test_a_row_with_results_of_its_own_is_no_page(tmp_path):
    rows = [INSIGHTS[0], INSIGHTS[1] | {"results": [{"indicator": "x", "values": []}]}]
    accepted, rejects = ingested(tmp_path, "rows.json", json.dumps(rows), "meta-ads")
    assert [row["text"] for row in accepted] == ["Buy it today", "Buy now"]
    assert rejects == []


def test_the_last_page_of_an_api_may_be_empty(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(PAGES[0]))
    (tmp_path / "two.json").write_text(json.dumps({"data": [], "paging": {}}))
    counts = ingest([tmp_path / "one.json", tmp_path / "two.json"], "meta-ads", tmp_path, IngestSettings())
    assert counts == (3, 3, 0)


def test_all_clicks_of_meta_are_a_setting(tmp_path):
    accepted, _ = ingested(tmp_path, "rows.json", json.dumps(INSIGHTS), "meta-ads", meta_clicks="all")
    assert [row["clicks"] for row in accepted] == [27, 35, 14, 0]


def test_insights_without_the_clicks_that_count_are_refused_whole(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "inline_link_clicks"} for row in INSIGHTS]
    with pytest.raises(UserError, match="inline_link_clicks or link clicks"):
        ingested(tmp_path, "rows.json", json.dumps(rows), "meta-ads")


def test_the_ads_manager_export_with_thousands_separators(tmp_path):
    content = (
        "Reporting starts,Reporting ends,Ad name,Ad ID,Body text,Impressions,Link clicks,Clicks (all)\n"
        '2025-03-01,2025-03-31,Spring,2,Buy now,"12,345",300,400\n'
        "2025-03-01,2025-03-31,Spring,1,Buy now,12345,300,400\n"
        '2025-03-01,2025-03-31,Spring,1,Buy today,"1,100",,9\n'
        "2025-03-01,2025-03-31,Results,,,24000,600,800\n"
    )
    accepted, rejects = ingested(tmp_path, "export.csv", content, "meta-ads")
    assert [(row["ad_id"], row["impressions"], row["clicks"], row["period"]) for row in accepted] == [
        ("1", 12345, 300, "2025-03-01/2025-03-31"),
        ("1", 1100, 0, "2025-03-01/2025-03-31"),
        ("2", 12345, 300, "2025-03-01/2025-03-31"),
    ]
    assert [row["reason"] for row in rejects] == ["missing text"]


@pytest.mark.parametrize(
    ("windows", "counted"),
    [
        (["01/10", "01/20"], ["01/20"]),
        (["01/20", "05/10", "08/08", "21/21"], ["01/20", "21/21"]),
        (["01/01", "02/02", "03/09"], ["01/01", "02/02", "03/09"]),
        (["01/07", "02/08", "03/09", "09/15", "10/16"], ["03/09", "10/16"]),
        (["01/31", "01/01", "31/31"], ["01/31"]),
        (["01/10", "01/20", "20/01"], ["01/20", "20/01"]),  # ends before it begins: no window
    ],
)
def test_of_windows_that_overlap_the_longest_counts_and_then_the_latest(tmp_path, windows, counted):
    """Windows are days of March, of one ad and text, in both orders and split over two files of both kinds."""
    for order in (windows, windows[::-1]):
        days = [tuple(f"2024-03-{day}" for day in window.split("/")) for window in order]
        rows = [insight("1", "11", "Buy now", "100", "3", start, date_stop=stop) for start, stop in days[:1]]
        (tmp_path / "api.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = [f"1,Buy now,100,3,{start},{stop}" for start, stop in days[1:]]
        header = "Ad ID,Body text,Impressions,Link clicks,Reporting starts,Reporting ends"
        (tmp_path / "manager.csv").write_text("\n".join([header, *lines]) + "\n")
        ingest([tmp_path / "api.jsonl", tmp_path / "manager.csv"], "meta-ads", tmp_path)
        periods = [row["period"] for row in pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()]
        rejects = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
        kept = ["/".join(dict.fromkeys(f"2024-03-{day}" for day in window.split("/"))) for window in counted]
        assert sorted(periods) == sorted(kept)
        assert len(rejects) == len(windows) - len(counted)
        assert all("overlaps one of the same ad and text that counts" in row["reason"] for row in rejects)


def test_a_day_is_one_period_however_it_is_written_and_wherever_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    periods = ["2024-03-01", "2024-03-01/2024-03-01", "2024-03-01 13:00:00", "3/3"]
    lines = "".join(f"a,Buy now,100,3,{period}\n" for period in periods)
    (tmp_path / "days.csv").write_text("ad_id,text,impressions,clicks,period\n" + lines)
    files = [tmp_path / "days.csv"]
    for name, zone in (("plain", None), ("zone", "UTC")):
        times = pa.array([datetime(2024, 3, 1), datetime(2024, 3, 4 + len(files))], pa.timestamp("us", zone))
        row = {"ad_id": ["a"] * 2, "text": ["Buy now"] * 2, "impressions": [100] * 2, "clicks": [3] * 2}
        files.append(tmp_path / f"{name}.parquet")
        pq.write_table(pa.table({**row, "period": times}), files[-1])
    ingest(files, "generic", tmp_path)
    accepted = [row["period"] for row in pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()]
    assert accepted == ["2024-03-01", "2024-03-01 13:00:00", "2024-03-05", "2024-03-06", "3/3"]
    reasons = [row["reason"] for row in pq.read_table(tmp_path / "rejects.parquet").to_pylist()]
    assert reasons == [f"duplicate variant: same ad, text and period as row 1 of {files[-1]}"] * 3


def test_windows_of_other_ads_and_texts_do_not_overlap(tmp_path):
    rows = [
        insight("1", "11", "Buy now", "100", "3", "2024-03-01", date_stop="2024-03-10"),
        insight("1", "12", "Buy today", "200", "3", "2024-03-01", date_stop="2024-03-20"),
        insight("2", "11", "Buy now", "200", "3", "2024-03-01", date_stop="2024-03-20"),
        insight("1", "13", "Buy now", "many", "3", "2024-03-01", date_stop="2024-03-31"),
    ]
    accepted, rejects = ingested(tmp_path, "rows.json", json.dumps(rows), "meta-ads")
    assert len(accepted) == 3
    assert [row["reason"] for row in rejects] == ["impressions is not a whole number"]


def asset_view(field, text, impressions, clicks):
    metrics = {"impressions": impressions} | ({"clicks": clicks} if clicks else {})
    return {
        "customer": {"id": "9"},
        "adGroup": {"id": "5"},
        "adGroupAd": {"ad": {"id": "1"}},
        "asset": {"textAsset": {"text": text}},
        "adGroupAdAssetView": {"fieldType": field, "performanceLabel": "GOOD"},
        "metrics": metrics,
        "segments": {"date": "2025-03-01"},
    }


EXPECTED_ASSETS = [
    ("1:5:description", "We deliver.", 800, 0, "Field: description"),
    ("1:5:headline", "Fresh bread", 900, 12, "Field: headline"),
    ("1:5:headline", "Warm bread", 700, 14, "Field: headline"),
]


def assets_of(accepted):
    rows = [tuple(row[c] for c in ("ad_id", "text", "impressions", "clicks", "context")) for row in accepted]
    return sorted(rows)


def test_google_asset_views_from_the_api(tmp_path):
    rows = [
        asset_view("HEADLINE", "Fresh bread", "900", "12"),
        asset_view("HEADLINE", "Warm bread", "700", "14"),
        asset_view("DESCRIPTION", "We deliver.", "800", None),
    ]
    content = json.dumps([{"results": rows[:2], "fieldMask": "…"}, {"results": rows[2:]}])
    accepted, rejects = ingested(tmp_path, "stream.json", content, "google-ads")
    assert assets_of(accepted) == EXPECTED_ASSETS
    assert {(row["advertiser_id"], row["period"]) for row in accepted} == {("9", "2025-03-01")}
    assert rejects == []


def test_google_asset_views_as_csv_of_the_query_language(tmp_path):
    content = (
        "ad_group.id,ad_group_ad.ad.id,ad_group_ad_asset_view.field_type,asset.text_asset.text,metrics.impressions,"
        "metrics.clicks\n"
        "5,1,HEADLINE,Fresh bread,900,12\n5,1,HEADLINE,Warm bread,700,14\n5,1,DESCRIPTION,We deliver.,800,0\n"
    )
    accepted, _ = ingested(tmp_path, "report.csv", content, "google-ads")
    assert assets_of(accepted) == EXPECTED_ASSETS


def test_google_reports_of_the_web_interface_have_titles_above_and_totals_below(tmp_path):
    content = (
        "Asset details report\n"
        '"March 1, 2025 - March 31, 2025"\n'
        "Ad group ID,Ad ID,Asset,Asset type,Performance,Impr.,Clicks\n"
        "5,1,Fresh bread,Headline,Good,900,12\n"
        "5,1,Warm bread,Headline,Best,700,14\n"
        "5,1,We deliver.,Description,--,800,0\n"
        "5,1,No data yet,Headline,--,--,--\n"
        "Total: Account,,,,,2400,26\n"
        " --, --,Total: Assets,  --,,2400,26\n"
    )
    accepted, rejects = ingested(tmp_path, "report.csv", content, "google-ads")
    assert assets_of(accepted) == EXPECTED_ASSETS
    assert sorted((row["row_number"], row["reason"]) for row in rejects) == [
        (4, "impressions is not a whole number"),
        (5, "missing text"),
        (6, "missing ad_id"),
    ]


def test_google_ids_that_a_table_of_floats_has_changed_are_the_same(tmp_path):
    header = "Ad group ID,Ad ID,Asset type,Asset,Impr.,Clicks\n"
    accepted, _ = ingested(tmp_path, "floats.csv", f"{header}55.0,9.0,Headline,Fresh bread,100,3\n", "google-ads")
    assert [row["ad_id"] for row in accepted] == ["9:55:headline"]


def test_google_reports_without_the_ad_group_tell_ads_apart_by_their_own_id(tmp_path):
    content = (
        "Ad ID,Asset,Asset type,Impr.,Clicks\n"
        "1,Fresh bread,Headline,900,12\n1,Warm bread,Headline,700,14\n2,Warm bread,Headline,800,0\n"
        ",No ad,Headline,1,0\n"
    )
    accepted, rejects = ingested(tmp_path, "report.csv", content, "google-ads")
    assert [(row["ad_id"], row["text"]) for row in accepted] == [
        ("1:headline", "Fresh bread"),
        ("1:headline", "Warm bread"),
        ("2:headline", "Warm bread"),
    ]
    assert [row["reason"] for row in rejects] == ["missing ad_id"]


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


def test_weeks_of_broken_randomisation_are_kept_on_request(tmp_path):
    header = "clickability_test_id,headline,lede,excerpt,impressions,clicks,test_week,eyecatcher_id\n"
    content = header + "t,One,l,e,100,3,201330,i\nt,Two,l,e,100,3,201330,i\nu,Three,l,e,100,3,201430,i\n"
    accepted, rejects = ingested(tmp_path, "p.csv", content, "upworthy")
    assert (len(accepted), len(rejects)) == (1, 2)
    accepted, rejects = ingested(tmp_path, "p.csv", content, "upworthy", keep_broken_randomisation=True)
    assert (len(accepted), len(rejects)) == (3, 0)
