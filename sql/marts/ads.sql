-- One row per ad from $first_id to $last_id, in order of ad_id: its number and what its variants share.
-- Names are keys of the grouping and not aggregated, for aggregates of text cannot leave memory for the disk; only ads
-- whose rows disagree take the smallest of each.
WITH named AS MATERIALIZED (
    SELECT DISTINCT ad_id, source, advertiser_id, context FROM raw_multitext_ads
    WHERE ad_id BETWEEN $first_id AND $last_id
),

disagreeing AS (
    SELECT ad_id FROM named GROUP BY ad_id HAVING count(*) > 1
),

ads AS (
    FROM named ANTI JOIN disagreeing USING (ad_id)
    UNION ALL
    SELECT ad_id, min(source) AS source, min(advertiser_id) AS advertiser_id, min(context) AS context
    FROM named SEMI JOIN disagreeing USING (ad_id)
    GROUP BY ad_id
)

SELECT splits.ad, ads.ad_id, ads.source, ads.advertiser_id, ads.context, splits.cluster, splits.split
FROM ads
INNER JOIN splits USING (ad_id)
ORDER BY splits.ad
