-- One row per parsed row of an asset report, values as text: the API's nested JSON, or a CSV with the names of the query
-- language or of the web interface. An ad is an ad group's ad and a field type (headline, description). A report
-- may leave the group out: ad ids are the account's own.
WITH fields AS (
    SELECT
        *,
        coalesce(raw_row ->> '$.adGroup.id', raw_row ->> '$."ad_group.id"', raw_row ->> 'ad group id') AS ad_group,
        coalesce(raw_row ->> '$.adGroupAd.ad.id', raw_row ->> '$."ad_group_ad.ad.id"', raw_row ->> 'ad id') AS ad,
        lower(
            coalesce(
                raw_row ->> '$.adGroupAdAssetView.fieldType',
                raw_row ->> '$."ad_group_ad_asset_view.field_type"',
                raw_row ->> 'asset type'
            )
        ) AS field_type,
        coalesce(
            raw_row ->> '$.asset.textAsset.text',
            raw_row ->> '$."asset.text_asset.text"',
            CASE WHEN json_type(raw_row, '$.asset') = 'VARCHAR' THEN raw_row ->> 'asset' END
        ) AS text,
        json_type(raw_row, '$.metrics') = 'OBJECT' AS from_api
    FROM source_rows
    WHERE problem IS NULL
)

SELECT
    file_index,
    source_file,
    position,
    row_number,
    $source::VARCHAR AS source,
    -- The web interface writes -- where there is nothing, as in its lines of totals.
    nullif(nullif(trim(ad), ''), '--') || coalesce(':' || nullif(trim(ad_group), ''), '') || ':' || field_type AS ad_id,
    coalesce(raw_row ->> '$.customer.id', raw_row ->> '$."customer.id"', raw_row ->> 'customer id') AS advertiser_id,
    'Field: ' || field_type AS context,
    NULL::VARCHAR AS variant_id,
    text,
    -- The API leaves out a count that is zero.
    coalesce(
        raw_row ->> '$.metrics.impressions', raw_row ->> '$."metrics.impressions"', raw_row ->> 'impr.',
        if(from_api, '0', NULL)
    ) AS impressions,
    coalesce(
        raw_row ->> '$.metrics.clicks', raw_row ->> '$."metrics.clicks"', raw_row ->> 'clicks', if(from_api, '0', NULL)
    ) AS clicks,
    coalesce(raw_row ->> '$.segments.date', raw_row ->> '$."segments.date"', raw_row ->> 'day') AS period,
    text AS duplicate_key,
    NULL::VARCHAR AS exclusion
FROM fields
