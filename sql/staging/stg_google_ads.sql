-- One row per parsed row of an asset report, values as text: the API's nested JSON, or a CSV with the names of the query
-- language or of the web interface. An ad is an ad group's ad and a field type (headline, description). A report
-- may leave the group out: ad ids are the account's own.
WITH looked_up AS (
    -- All at once: a row's JSON is parsed once, not once a field.
    SELECT
        *,
        json_extract_string(raw_row, [
            '$.adGroup.id', '$."ad_group.id"', 'ad group id',
            '$.adGroupAd.ad.id', '$."ad_group_ad.ad.id"', 'ad id',
            '$.adGroupAdAssetView.fieldType', '$."ad_group_ad_asset_view.field_type"', 'asset type',
            '$.asset.textAsset.text', '$."asset.text_asset.text"', 'asset',
            '$.customer.id', '$."customer.id"', 'customer id',
            '$.metrics.impressions', '$."metrics.impressions"', 'impr.',
            '$.metrics.clicks', '$."metrics.clicks"', 'clicks',
            '$.segments.date', '$."segments.date"', 'day',
            '$.segments.week', '$."segments.week"', 'week',
            '$.segments.month', '$."segments.month"', 'month'
        ]) AS found,
        json_type(raw_row, ['asset', 'metrics']) AS types
    FROM source_rows
    WHERE problem IS NULL
),

named AS (
    SELECT
        *,
        coalesce(found[1], found[2], found[3]) AS ad_group,
        coalesce(found[4], found[5], found[6]) AS ad,
        -- The web interface writes Long headline and 123-456-7890, the API LONG_HEADLINE and 1234567890.
        replace(lower(coalesce(found[7], found[8], found[9])), ' ', '_') AS field_type,
        coalesce(found[10], found[11], CASE WHEN types[1] = 'VARCHAR' THEN found[12] END) AS text,
        regexp_replace(coalesce(found[13], found[14], found[15]), '^(\d{3})-(\d{3})-(\d{4})$', '\1\2\3') AS advertiser_id,
        -- The API leaves out a count that is zero.
        if(types[2] = 'OBJECT', '0', NULL) AS absent,
        coalesce(found[16], found[17], found[18], absent) AS impressions,
        coalesce(found[19], found[20], found[21], absent) AS clicks,
        coalesce(found[22], found[23], found[24]) AS day,
        coalesce(found[25], found[26], found[27]) AS week,
        coalesce(found[28], found[29], found[30]) AS month
    FROM looked_up
)

SELECT
    file_index,
    source_file,
    position,
    row_number,
    $source::VARCHAR AS source,
    -- The web interface writes -- where there is nothing, as in its lines of totals.
    nullif(plain_id(ad), '--') || coalesce(':' || plain_id(ad_group), '') || ':' || field_type AS ad_id,
    advertiser_id,
    'Field: ' || field_type AS context,
    NULL::VARCHAR AS variant_id,
    text,
    impressions,
    clicks,
    coalesce(day, window_from(week, INTERVAL 1 WEEK), window_from(month, INTERVAL 1 MONTH)) AS period,
    text AS duplicate_key,
    NULL::VARCHAR AS exclusion
FROM named
