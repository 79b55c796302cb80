-- One row per parsed row of Meta's insights, values as text: from the API (body_asset is an object) or the Ads Manager.
-- $api_clicks, $export_clicks: the field of the clicks that count. A row without it had none.
WITH looked_up AS (
    -- All at once: a row's JSON is parsed once, not once a field.
    SELECT
        *,
        json_extract_string(raw_row, [
            'ad_id', 'ad id', 'account_id', 'account id', '$.body_asset.id', '$.body_asset.text', 'body text', 'impressions',
            $api_clicks, $export_clicks, 'day', 'date_start', 'reporting starts', 'date_stop', 'reporting ends'
        ]) AS found
    FROM source_rows
    WHERE problem IS NULL
),

named AS (
    SELECT
        *,
        coalesce(found[1], found[2]) AS ad_id,
        coalesce(found[3], found[4]) AS advertiser_id,
        found[5] AS variant_id,
        coalesce(found[6], found[7]) AS text,
        found[8] AS impressions,
        coalesce(found[9], found[10], '0') AS clicks,
        found[11] AS day,
        coalesce(found[12], found[13]) AS starts,
        coalesce(found[14], found[15]) AS stops
    FROM looked_up
)

SELECT
    file_index,
    source_file,
    position,
    row_number,
    $source::VARCHAR AS source,
    ad_id,
    advertiser_id,
    NULL::VARCHAR AS context,
    variant_id,
    text,
    impressions,
    clicks,
    coalesce(day, CASE WHEN starts = stops THEN starts ELSE starts || '/' || stops END) AS period,
    coalesce(plain_id(variant_id), text) AS duplicate_key,
    NULL::VARCHAR AS exclusion
FROM named
