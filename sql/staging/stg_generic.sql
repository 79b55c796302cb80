-- One row per parsed row of the user's files, values as text. $keys: JSON pointers to what the file calls the raw table's
-- columns, in their order, and then, where that differs, to the same in lower case (as the header of a CSV file is read).
-- $source: where a row does not name its own source.
-- duplicate_key: what may occur once per ad and period. exclusion: why the format itself refuses the row.
WITH looked_up AS (
    -- All at once: a row's JSON is parsed once, not once a field.
    SELECT *, json_extract_string(raw_row, $keys) AS found
    FROM source_rows
    WHERE problem IS NULL
),

named AS (
    SELECT
        *,
        coalesce(nullif(trim(coalesce(found[1], found[10])), ''), $source) AS source,
        coalesce(found[2], found[11]) AS ad_id,
        coalesce(found[3], found[12]) AS advertiser_id,
        coalesce(found[4], found[13]) AS context,
        coalesce(found[5], found[14]) AS variant_id,
        coalesce(found[6], found[15]) AS text,
        coalesce(found[7], found[16]) AS impressions,
        coalesce(found[8], found[17]) AS clicks,
        coalesce(found[9], found[18]) AS period
    FROM looked_up
)

SELECT
    file_index,
    source_file,
    position,
    row_number,
    source,
    ad_id,
    advertiser_id,
    context,
    variant_id,
    text,
    impressions,
    clicks,
    period,
    coalesce(plain_id(variant_id), text) AS duplicate_key,
    NULL::VARCHAR AS exclusion
FROM named
