-- One row per parsed row of Meta's insights, values as text: from the API (body_asset is an object) or the Ads Manager.
-- $api_clicks, $export_clicks: the field of the clicks that count. A row without it had none.
SELECT
    file_index,
    source_file,
    position,
    row_number,
    $source::VARCHAR AS source,
    coalesce(raw_row ->> 'ad_id', raw_row ->> 'ad id') AS ad_id,
    coalesce(raw_row ->> 'account_id', raw_row ->> 'account id') AS advertiser_id,
    NULL::VARCHAR AS context,
    raw_row ->> '$.body_asset.id' AS variant_id,
    coalesce(raw_row ->> '$.body_asset.text', raw_row ->> 'body text') AS text,
    raw_row ->> 'impressions' AS impressions,
    coalesce(raw_row ->> $api_clicks, raw_row ->> $export_clicks, '0') AS clicks,
    coalesce(raw_row ->> 'day', CASE WHEN starts = stops THEN starts ELSE starts || '/' || stops END) AS period,
    coalesce(raw_row ->> '$.body_asset.id', raw_row ->> '$.body_asset.text', raw_row ->> 'body text') AS duplicate_key,
    NULL::VARCHAR AS exclusion
FROM (
    SELECT
        *,
        coalesce(raw_row ->> 'date_start', raw_row ->> 'reporting starts') AS starts,
        coalesce(raw_row ->> 'date_stop', raw_row ->> 'reporting ends') AS stops
    FROM source_rows
    WHERE problem IS NULL
)
