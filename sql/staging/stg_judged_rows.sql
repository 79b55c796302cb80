-- One row per row of the user's files, normalised, with the first reason to refuse it (null: accepted).
-- Reads `typed_rows` (a format's staging SELECT) and the rows of `source_rows` that could not be parsed.
WITH normalised AS (
    SELECT
        * REPLACE (
            nullif(trim(source), '') AS source,
            nullif(trim(ad_id), '') AS ad_id,
            nullif(trim(advertiser_id), '') AS advertiser_id,
            nullif(trim(regexp_replace(nfc_normalize(context), '[\s\pZ]+', ' ', 'g')), '') AS context,
            nullif(trim(variant_id), '') AS variant_id,
            nullif(trim(regexp_replace(nfc_normalize(text), '[\s\pZ]+', ' ', 'g')), '') AS text,
            nullif(trim(period), '') AS period,
            trim(regexp_replace(nfc_normalize(duplicate_key), '[\s\pZ]+', ' ', 'g')) AS duplicate_key,
            -- 3052 and 3052.0 are whole numbers, 3.7 is none (a bare cast would round it).
            CASE WHEN regexp_full_match(trim(impressions), '[+-]?[0-9]+(\.0*)?')
                THEN try_cast(split_part(trim(impressions), '.', 1) AS BIGINT) END AS impressions,
            CASE WHEN regexp_full_match(trim(clicks), '[+-]?[0-9]+(\.0*)?')
                THEN try_cast(split_part(trim(clicks), '.', 1) AS BIGINT) END AS clicks
        )
    FROM typed_rows
),

judged AS (
    SELECT
        * REPLACE (coalesce(variant_id, left(md5(text), 12)) AS variant_id),
        CASE
            WHEN text IS NULL THEN 'missing text'
            WHEN ad_id IS NULL THEN 'missing ad_id'
            WHEN impressions IS NULL THEN 'impressions is not a whole number'
            WHEN clicks IS NULL THEN 'clicks is not a whole number'
            WHEN impressions < 0 OR clicks < 0 THEN 'negative count'
            WHEN impressions = 0 THEN 'zero impressions'
            WHEN clicks > impressions THEN 'more clicks than impressions'
            ELSE exclusion
        END AS own_reason
    FROM normalised
),

-- The first valid row of an ad and variant_id says what the variant's text is, the first of a key and period its counts.
compared AS (
    SELECT
        *,
        first_value({'file': source_file, 'row': row_number, 'text': text}) OVER (
            PARTITION BY ad_id, variant_id, own_reason IS NULL ORDER BY file_index, row_number
        ) AS same_id,
        first_value({'file': source_file, 'row': row_number}) OVER (
            PARTITION BY ad_id, duplicate_key, period, own_reason IS NULL ORDER BY file_index, row_number
        ) AS same_key
    FROM judged
)

SELECT
    file_index, source_file, row_number, raw_row,
    source, ad_id, advertiser_id, context, variant_id, text, impressions, clicks, period,
    CASE
        WHEN own_reason IS NOT NULL THEN own_reason
        WHEN same_id.text <> text
            THEN 'variant_id used for another text of this ad: row ' || same_id.row
                || if(same_id.file = source_file, '', ' of ' || same_id.file)
        WHEN same_key <> {'file': source_file, 'row': row_number}
            THEN 'duplicate variant: same ad, text and period as row ' || same_key.row
                || if(same_key.file = source_file, '', ' of ' || same_key.file)
    END AS reason
FROM compared
UNION ALL BY NAME
SELECT file_index, source_file, row_number, raw_row, problem AS reason
FROM source_rows
WHERE problem IS NOT NULL
