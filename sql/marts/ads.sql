-- One row per ad, in order of ad_id: what its variants share. The row's number (rowid) is the ad's number in `variants`.
WITH ads AS (
    SELECT ad_id, min(source) AS source, min(advertiser_id) AS advertiser_id, min(context) AS context
    FROM raw_multitext_ads
    GROUP BY ad_id
)

SELECT ads.ad_id, ads.source, ads.advertiser_id, ads.context, splits.split
FROM ads
INNER JOIN splits USING (ad_id)
ORDER BY ads.ad_id
