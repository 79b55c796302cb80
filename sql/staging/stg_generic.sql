-- One row per parsed row of the user's files, values as text. $<field>_keys: JSON pointers to what the file calls the field,
-- as given and in lower case (as the header of a CSV file is read). $source: where a row does not name its own source.
-- duplicate_key: what may occur once per ad and period. exclusion: why the format itself refuses the row.
SELECT
    file_index,
    source_file,
    position,
    row_number,
    coalesce(nullif(trim(field(raw_row, $source_keys)), ''), $source) AS source,
    field(raw_row, $ad_id_keys) AS ad_id,
    field(raw_row, $advertiser_id_keys) AS advertiser_id,
    field(raw_row, $context_keys) AS context,
    field(raw_row, $variant_id_keys) AS variant_id,
    field(raw_row, $text_keys) AS text,
    field(raw_row, $impressions_keys) AS impressions,
    field(raw_row, $clicks_keys) AS clicks,
    field(raw_row, $period_keys) AS period,
    coalesce(nullif(trim(field(raw_row, $variant_id_keys)), ''), field(raw_row, $text_keys)) AS duplicate_key,
    NULL::VARCHAR AS exclusion
FROM source_rows
WHERE problem IS NULL
