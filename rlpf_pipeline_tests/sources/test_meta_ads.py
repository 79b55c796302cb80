"""What the Marketing API and the Ads Manager export, written here as they write it; days and windows of days."""

import gzip
import json
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import IngestSettings
from rlpf_pipeline.sources.ingest import ingest
from rlpf_pipeline_tests.sources.ingesting import ingested


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


def test_a_day_from_the_api_and_from_the_ads_manager_counts_once(tmp_path):
    """The API names assets by ids, the Ads Manager by their texts; in files that name them by ids, two ids are two."""
    (tmp_path / "api.json").write_text(
        json.dumps([insight("1", "11", "Buy now\nHere", "100", "3"), insight("1", "12", "Buy today", "90", "2")])
    )
    (tmp_path / "twin.json").write_text(json.dumps([insight("1", "13", "Buy today", "50", "1")]))
    header = "Ad ID,Body text,Impressions,Link clicks,Day\n"
    (tmp_path / "manager.csv").write_text(f"{header}1,Buy now  Here,120,4,2025-03-01\n")
    files = {name: tmp_path / name for name in ("api.json", "twin.json", "manager.csv")}
    for order, counted in (
        (["api.json", "twin.json", "manager.csv"], {("Buy now Here", 120), ("Buy today", 90), ("Buy today", 50)}),
        (["manager.csv", "api.json", "twin.json"], {("Buy now Here", 100), ("Buy today", 90), ("Buy today", 50)}),
    ):
        assert ingest([files[name] for name in order], "meta-ads", tmp_path) == (4, 3, 1)
        accepted = pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()
        assert {(row["text"], row["impressions"]) for row in accepted} == counted
        (reject,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
        last = files["manager.csv" if order[-1] == "manager.csv" else "api.json"]
        assert reject["reason"] == f"duplicate variant: same ad, text and period as a row of {last}"


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
