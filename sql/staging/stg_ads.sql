-- One row per ad with its rank among all ad_ids, from 0: a number to cluster by.
SELECT ad_id, row_number() OVER (ORDER BY ad_id) - 1 AS ad
FROM (SELECT DISTINCT ad_id FROM raw_multitext_ads)
