-- One row per advertiser of an experiment, from ab_rows (one row per advertiser, or per advertiser and day).
-- Counts are sums. What describes the advertiser (covariates, every other column) is taken from its first day, as known
-- before the treatment could change it. Exact: an advertiser's score is the sum of its rows' scores.
SELECT
    advertiser_id,
    min(arm) AS arm,
    min(arm) <> max(arm) AS crossed,
    count(*) AS row_count,
    sum(impressions) AS impressions,
    sum(clicks) AS clicks,
    sum(ads) AS ads,
    sum(variations) AS variations,
    sum(spend) AS spend,
    arg_min(COLUMNS(* EXCLUDE (advertiser_id, arm, impressions, clicks, ads, variations, spend, day)), day)
FROM ab_rows
GROUP BY advertiser_id
ORDER BY advertiser_id
