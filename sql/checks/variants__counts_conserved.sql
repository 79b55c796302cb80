-- Offenders: ads whose variants have other impressions or clicks in all than the raw rows. Rows were lost or doubled.
WITH raw AS (
    SELECT ad_id, sum(impressions) AS impressions, sum(clicks) AS clicks FROM raw_multitext_ads GROUP BY ad_id
),

merged AS (
    SELECT ads.ad_id, sum(variants.impressions) AS impressions, sum(variants.clicks) AS clicks
    FROM variants
    INNER JOIN ads ON variants.ad = ads.ad
    GROUP BY ads.ad_id
)

SELECT ad_id, raw.impressions, raw.clicks, merged.impressions AS merged_impressions, merged.clicks AS merged_clicks
FROM raw
FULL JOIN merged USING (ad_id)
WHERE (raw.impressions, raw.clicks) IS DISTINCT FROM (merged.impressions, merged.clicks)
ORDER BY ad_id
