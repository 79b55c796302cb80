-- One row per advertiser and period of $length days of an experiment with a date, from ab_rows.
-- period: number of the period from 0, counted from $first, the experiment's first day.
SELECT
    advertiser_id,
    (day - $first) // $length AS period,
    sum(impressions) AS impressions,
    sum(clicks) AS clicks
FROM ab_rows
GROUP BY ALL
ORDER BY advertiser_id, period
