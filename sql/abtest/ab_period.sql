-- One row per advertiser and period of $length days of an experiment with a date, from ab_rows.
-- advertiser: number of the advertiser from 0, in the order of ab_advertiser. period: number of the period from 0, counted
-- from $first, the experiment's first day.
WITH totals AS (
    SELECT
        advertiser_id,
        (day - $first) // $length AS period,
        sum(impressions) AS impressions,
        sum(clicks) AS clicks
    FROM ab_rows
    GROUP BY ALL
)

SELECT
    dense_rank() OVER (ORDER BY advertiser_id) - 1 AS advertiser,
    period,
    impressions,
    clicks
FROM totals
ORDER BY advertiser, period
