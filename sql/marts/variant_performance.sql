-- One row per ad and distinct text: counts summed over periods and over arms that showed the same text.
WITH ads AS (
    SELECT ad_id, min(source) AS source, min(advertiser_id) AS advertiser_id, min(context) AS context
    FROM raw_multitext_ads
    GROUP BY ad_id
),

texts AS (
    SELECT
        ad_id,
        text,
        min(variant_id) AS variant_id,
        sum(impressions)::BIGINT AS impressions,
        sum(clicks)::BIGINT AS clicks
    FROM raw_multitext_ads
    GROUP BY ad_id, text
)

SELECT
    ads.source,
    texts.ad_id,
    ads.advertiser_id,
    ads.context,
    texts.variant_id,
    texts.text,
    texts.impressions,
    texts.clicks,
    texts.clicks / texts.impressions AS ctr,
    splits.split
FROM texts
INNER JOIN ads USING (ad_id)
INNER JOIN splits USING (ad_id)
