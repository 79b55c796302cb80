-- One row per parsed row of the user's files, values as text. $<field>_column: what the file calls the field (the header
-- of a CSV file is read in lower case). $source: where a row does not name its own source.
-- duplicate_key: what may occur once per ad and period. exclusion: why the format itself refuses the row.
SELECT
    file_index,
    source_file,
    position,
    row_number,
    coalesce(nullif(trim(field(raw_row, $source_column)), ''), $source) AS source,
    field(raw_row, $ad_id_column) AS ad_id,
    field(raw_row, $advertiser_id_column) AS advertiser_id,
    field(raw_row, $context_column) AS context,
    field(raw_row, $variant_id_column) AS variant_id,
    field(raw_row, $text_column) AS text,
    field(raw_row, $impressions_column) AS impressions,
    field(raw_row, $clicks_column) AS clicks,
    field(raw_row, $period_column) AS period,
    coalesce(nullif(trim(field(raw_row, $variant_id_column)), ''), field(raw_row, $text_column)) AS duplicate_key,
    NULL::VARCHAR AS exclusion
FROM source_rows
WHERE problem IS NULL
