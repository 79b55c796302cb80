-- One row per row that could be parsed: its values normalised, and the first reason of its own to refuse it (null: none).
-- Reads typed_rows, a format's staging SELECT.
SELECT
    * EXCLUDE (exclusion) REPLACE (coalesce(variant_id, left(md5(text), 12)) AS variant_id),
    CASE
        WHEN text IS NULL THEN 'missing text'
        WHEN ad_id IS NULL THEN 'missing ad_id'
        -- A spreadsheet shows 120210000000000017 as 1.2021E+17, a column of floats as 120210000000000020.0, and several ads
        -- of an account become one.
        WHEN regexp_matches(ad_id, '^([0-9]([.,][0-9]+[eE][+]?|[eE][+])[0-9]{2}|[0-9]{16,}\.0)(:|$)')
            THEN 'ad_id is a rounded number: format the column as text before the file is saved'
        WHEN impressions IS NULL THEN 'impressions is not a whole number'
        WHEN clicks IS NULL THEN 'clicks is not a whole number'
        WHEN greatest(impressions, clicks) > 1e12 THEN 'too large for a count'
        WHEN impressions < 0 OR clicks < 0 THEN 'negative count'
        WHEN impressions = 0 THEN 'zero impressions'
        WHEN clicks > impressions THEN 'more clicks than impressions'
        ELSE exclusion
    END AS own_reason
FROM (
    SELECT
        * REPLACE (
            nullif(trim(source), '') AS source,
            plain_id(ad_id) AS ad_id,
            plain_id(advertiser_id) AS advertiser_id,
            clean_text(context) AS context,
            plain_id(variant_id) AS variant_id,
            clean_text(text) AS text,
            plain_period(nullif(trim(period), '')) AS period,
            whole_number(impressions) AS impressions,
            whole_number(clicks) AS clicks
        )
    FROM typed_rows
)
