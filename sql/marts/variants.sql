-- One row per ad from $first_id to $last_id and distinct text, in order of ad and variant_id (and text, should ids repeat):
-- counts summed over periods and over arms that showed the same text. Rows are numbered on from $first_variant.
WITH own_ads AS (
    SELECT ad, ad_id, split FROM ads WHERE ad_id BETWEEN $first_id AND $last_id
),

merged AS (
    SELECT
        own_ads.ad,
        min(raw.variant_id) AS variant_id,
        raw.text,
        sum(raw.impressions)::BIGINT AS impressions,
        sum(raw.clicks)::BIGINT AS clicks
    FROM raw_multitext_ads AS raw
    INNER JOIN own_ads USING (ad_id)
    WHERE raw.ad_id BETWEEN $first_id AND $last_id
    GROUP BY ALL
)

SELECT
    ($first_variant + row_number() OVER (ORDER BY merged.ad, merged.variant_id, merged.text) - 1)::INTEGER AS variant,
    merged.*,
    own_ads.split
FROM merged
INNER JOIN own_ads USING (ad)
ORDER BY variant
