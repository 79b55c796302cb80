-- One row per accepted source row: a variant of an ad in a period. $path: Parquet files that `ingest` or the market wrote.
SELECT
    source::VARCHAR AS source,
    ad_id::VARCHAR AS ad_id,
    advertiser_id::VARCHAR AS advertiser_id,
    context::VARCHAR AS context,
    variant_id::VARCHAR AS variant_id,
    text::VARCHAR AS text,
    impressions::BIGINT AS impressions,
    clicks::BIGINT AS clicks,
    period::VARCHAR AS period
FROM read_parquet($path)
