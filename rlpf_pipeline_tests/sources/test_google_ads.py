"""Asset reports of responsive search ads, written here as the API and the web interface write them."""

import json

import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.sources.ingest import ingest
from rlpf_pipeline_tests.sources.ingesting import ingested


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


def test_an_account_and_a_field_are_the_same_from_the_api_and_the_web_interface(tmp_path):
    """Of a day in both the last file's counts are taken."""
    api = asset_view("LONG_HEADLINE", "Bread as it was", "100", "3") | {"customer": {"id": "1234567890"}}
    (tmp_path / "api.jsonl").write_text(json.dumps(api))
    (tmp_path / "web.csv").write_text(
        "Customer ID,Ad group ID,Ad ID,Asset,Asset type,Impr.,Clicks,Day\n"
        "123-456-7890,5,1,Bread as it was,Long headline,120,4,2025-03-01\n9,5,2,Warm bread,Headline,80,2,2025-03-01\n"
    )
    ingest([tmp_path / "api.jsonl", tmp_path / "web.csv"], "google-ads", tmp_path)
    accepted = pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()
    assert [(row["ad_id"], row["advertiser_id"], row["impressions"]) for row in accepted] == [
        ("1:5:long_headline", "1234567890", 120),
        ("2:5:headline", "9", 80),
    ]


def test_reports_of_two_months_that_do_not_say_which_are_told(tmp_path):
    for month, impressions in (("March", 900), ("April", 700)):
        (tmp_path / f"{month}.csv").write_text(
            f'Asset details report\n"{month} 1, 2025 - {month} 30, 2025"\n'
            "Ad group ID,Ad ID,Asset,Asset type,Impr.,Clicks\n"
            f"5,1,Fresh bread,Headline,{impressions},12\n"
        )
    counts = ingest([tmp_path / "March.csv", tmp_path / "April.csv"], "google-ads", tmp_path)
    assert counts == (2, 1, 1)
    (reject,) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    told = f"duplicate variant: same ad and text, and no period, as row 1 of {tmp_path / 'April.csv'}"
    assert reject["reason"] == told


@pytest.mark.parametrize(
    ("column", "first_days", "periods"),
    [
        ("Week", ("2025-03-03", "2025-03-10"), ["2025-03-03/2025-03-09", "2025-03-10/2025-03-16"]),
        ("segments.month", ("2024-02-01", "2024-03-01"), ["2024-02-01/2024-02-29", "2024-03-01/2024-03-31"]),
        ("Month", ("March 2025", "April 2025"), ["April 2025", "March 2025"]),
    ],
)
def test_weeks_and_months_are_windows_of_their_days(tmp_path, column, first_days, periods):
    """Unread, all but the first were refused as duplicates of it, which turned the winner."""
    rows = "".join(
        f"{day},5,1,{text},Headline,{impressions},{clicks}\n"
        for day, counts in zip(first_days, (((900, 12), (900, 14)), ((800, 40), (700, 2))), strict=True)
        for text, (impressions, clicks) in zip(("Fresh bread", "Warm bread"), counts, strict=True)
    )
    (tmp_path / "week.csv").write_text(f"{column},Ad group ID,Ad ID,Asset,Asset type,Impr.,Clicks\n{rows}")
    assert ingest([tmp_path / "week.csv"], "google-ads", tmp_path) == (4, 4, 0)
    accepted = pq.read_table(tmp_path / "multitext_ads.parquet").to_pylist()
    assert sorted({row["period"] for row in accepted}) == periods
    fresh = [row for row in accepted if row["text"] == "Fresh bread"]
    assert (sum(row["clicks"] for row in fresh), sum(row["impressions"] for row in fresh)) == (52, 1700)
