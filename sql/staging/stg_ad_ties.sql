-- One row per ad and thing it shares with its like: its advertiser, and each of its texts in lower case without
-- punctuation (a text of punctuation alone stays as it is).
SELECT DISTINCT
    ad_id,
    'text:' || coalesce(
        nullif(trim(regexp_replace(regexp_replace(lower(text), '[\pP\pS]+', '', 'g'), '\s+', ' ', 'g')), ''), text
    ) AS tie
FROM raw_multitext_ads
UNION
SELECT DISTINCT ad_id, 'advertiser:' || advertiser_id AS tie
FROM raw_multitext_ads
WHERE advertiser_id IS NOT NULL
