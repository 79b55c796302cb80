-- One row per parsed row of the user's files, values as text. $source: where a row does not name its own source.
-- duplicate_key: what may occur once per ad and period. exclusion: why the format itself refuses the row.
SELECT
    file_index,
    source_file,
    position,
    row_number,
    raw_row,
    coalesce(nullif(trim(raw_row ->> 'source'), ''), $source) AS source,
    raw_row ->> 'ad_id' AS ad_id,
    raw_row ->> 'advertiser_id' AS advertiser_id,
    raw_row ->> 'context' AS context,
    raw_row ->> 'variant_id' AS variant_id,
    raw_row ->> 'text' AS text,
    raw_row ->> 'impressions' AS impressions,
    raw_row ->> 'clicks' AS clicks,
    raw_row ->> 'period' AS period,
    coalesce(nullif(trim(raw_row ->> 'variant_id'), ''), raw_row ->> 'text') AS duplicate_key,
    NULL::VARCHAR AS exclusion
FROM source_rows
WHERE problem IS NULL
