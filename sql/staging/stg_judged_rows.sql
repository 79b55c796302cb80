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
        days(period) AS days,
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
),

-- Per text the longest window counts, of equal ones the latest, then the next that overlaps none that counts. Only a
-- window of several days can overlap another.
counted_windows AS (
    SELECT
        ad_id,
        text,
        list_reduce(
            list([days] ORDER BY days.last - days.first DESC, days.last DESC),
            lambda counted, next: CASE WHEN len(overlapping(counted, next[1])) = 0 THEN counted || next ELSE counted END
        ) AS counted
    FROM (SELECT DISTINCT ad_id, text, days FROM compared WHERE own_reason IS NULL AND text = text_of_id)
    WHERE days.first <= days.last
    GROUP BY ad_id, text
    HAVING count(*) > 1 AND max(days.last - days.first) > 0
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
        WHEN overlapping(counted, days)[1] <> days
            THEN 'period overlaps one of the same ad and text that counts: '
                || overlapping(counted, days)[1].first || '/' || overlapping(counted, days)[1].last
    END AS reason
FROM compared
LEFT JOIN counted_windows USING (ad_id, text)
UNION ALL BY NAME
SELECT source_file, row_number, raw_row, problem AS reason
FROM source_rows
WHERE problem IS NOT NULL
