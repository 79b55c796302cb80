"""Meta ads with several body texts: Marketing API insights with `breakdowns=body_asset`, or the Ads Manager export.

The API gives JSON (objects, one a line, or its pages with `data`), the Ads Manager a CSV with the column "Body text".
An ad is an ad_id; a variant is a body asset; daily rows keep their day. Meta counts two kinds of clicks: link clicks
lead to the advertiser's page, all clicks include likes and comments: link clicks are the default, as they are what an
advertiser pays for. The API leaves out a count that is zero.
"""

from rlpf_pipeline.settings import IngestSettings
from rlpf_pipeline.sources.files import Required
from rlpf_pipeline.sources.source_format import SourceFormat, one_of

CLICKS = {"link": ("inline_link_clicks", "link clicks"), "all": ("clicks", "clicks (all)")}


def required(settings: IngestSettings) -> tuple[Required, ...]:
    clicks = one_of(*CLICKS[settings.meta_clicks])
    return one_of("ad_id", "ad id"), one_of("body_asset", "body text"), one_of("impressions"), clicks


def parameters(settings: IngestSettings) -> dict[str, object]:
    api, export = CLICKS[settings.meta_clicks]
    return {"api_clicks": api, "export_clicks": export}


META_ADS = SourceFormat("meta-ads", "staging/stg_meta_ads", required, parameters)
