-- One row per ad and distinct text, in order of ad and variant_id (and text, should ids repeat): counts summed over periods
-- and over arms that showed the same text. The row's number (rowid) is the variant's number in `pairs`.
SELECT
    ads.rowid::INTEGER AS ad,
    min(raw.variant_id) AS variant_id,
    raw.text,
    sum(raw.impressions)::BIGINT AS impressions,
    sum(raw.clicks)::BIGINT AS clicks,
    ads.split
FROM raw_multitext_ads AS raw
INNER JOIN ads USING (ad_id)
GROUP BY ALL
ORDER BY ad, variant_id, raw.text
