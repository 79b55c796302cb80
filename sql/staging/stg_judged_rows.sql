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
            whole_number(impressions) AS impressions,
            whole_number(clicks) AS clicks
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
-- Keys are compared as they stand in the file: texts that are equal only when normalised are merged later.
compared AS (
    SELECT
        *,
        first_value(text) OVER by_variant_id AS text_of_id,
        first_value(place) OVER by_variant_id AS place_of_id,
        first_value(place) OVER by_key AS place_of_key,
        row_number() OVER by_key > 1 AS key_is_taken
    FROM (
        SELECT *, {'file': source_file, 'row': coalesce('row ' || row_number, 'an earlier row')} AS place FROM judged
    )
    WINDOW
        by_variant_id AS (PARTITION BY ad_id, variant_id, own_reason IS NULL ORDER BY file_index, position),
        by_key AS (PARTITION BY ad_id, duplicate_key, period, own_reason IS NULL ORDER BY file_index, position)
)

SELECT
    source_file, row_number, raw_row,
    source, ad_id, advertiser_id, context, variant_id, text, impressions, clicks, period,
    CASE
        WHEN own_reason IS NOT NULL THEN own_reason
        WHEN text_of_id <> text
            THEN 'variant_id used for another text of this ad: ' || place_of_id.row
                || if(place_of_id.file = source_file, '', ' of ' || place_of_id.file)
        WHEN key_is_taken
            THEN 'duplicate variant: same ad, text and period as ' || place_of_key.row
                || if(place_of_key.file = source_file, '', ' of ' || place_of_key.file)
    END AS reason
FROM compared
UNION ALL BY NAME
SELECT source_file, row_number, raw_row, problem AS reason
FROM source_rows
WHERE problem IS NOT NULL
