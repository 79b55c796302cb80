"""Google responsive search ads: asset reports of `ad_group_ad_asset_view`, as the API's JSON or as CSV.

The API gives nested JSON (pages with `results`); a CSV names its columns as the query language does
(`asset.text_asset.text`) or as the web interface does (Asset, Asset type, Impr.), there below title lines. Headlines of
an ad compete with headlines and descriptions with descriptions, so an ad here is an ad group's ad and a field type,
which is also the context; where a report leaves the ad group's id out, an ad and a field type: ad ids are the account's
own. Impressions of an asset are not exclusive: several assets are shown at once, and a click counts for each.
"""

from rlpf_pipeline.sources.source_format import SourceFormat, one_of

REQUIRED = (
    one_of("ad_group_ad.ad.id", "adGroupAd", "ad id"),
    one_of("asset.text_asset.text", "asset"),
    one_of("ad_group_ad_asset_view.field_type", "adGroupAdAssetView", "asset type"),
    one_of("metrics.impressions", "metrics", "impr."),
    one_of("metrics.clicks", "metrics", "clicks"),
)

GOOGLE_ADS = SourceFormat("google-ads", "staging/stg_google_ads", required=lambda settings: REQUIRED)
