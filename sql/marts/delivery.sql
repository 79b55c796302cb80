-- One row per ad from $first_id to $last_id with several texts, in order of ad_id: how evenly its impressions were
-- delivered, and whether an early winner got more.
-- Where a platform chooses what to show, a text's CTR is that of the people it was shown to.
--
-- evenness: effective number of texts, (sum n)^2 / sum n^2, over their number: 1 when all had the same impressions.
-- early_winner_gain: later less early share of impressions of the text with the highest CTR in the ad's first period, among
-- the texts shown then; null with one period. Its mean is 0 when delivery does not look at clicks.
WITH own AS (
    FROM raw_multitext_ads WHERE ad_id BETWEEN $first_id AND $last_id
),

firsts AS (
    SELECT ad_id, min(period) AS period FROM own GROUP BY ad_id
),

texts AS (
    SELECT
        own.ad_id,
        own.text,
        sum(own.impressions) AS impressions,
        sum(own.impressions) FILTER (own.period = firsts.period) AS early_impressions,
        sum(own.clicks) FILTER (own.period = firsts.period) AS early_clicks
    FROM own
    INNER JOIN firsts USING (ad_id)
    GROUP BY own.ad_id, own.text
),

ads AS (
    SELECT
        ad_id,
        count(*) AS variants,
        sum(impressions) AS total,
        sum(early_impressions) AS early_total,
        sum(impressions - early_impressions) AS later_total,
        sum(impressions * impressions::DOUBLE) AS squares,
        arg_max(
            {'early': early_impressions, 'later': impressions - early_impressions},
            (early_clicks / early_impressions, md5(text))
        ) FILTER (early_impressions IS NOT NULL) AS winner
    FROM texts
    GROUP BY ad_id
    HAVING count(*) > 1
)

SELECT
    ad_id,
    variants,
    total * total::DOUBLE / (variants * squares) AS evenness,
    CASE WHEN later_total > 0 THEN winner.later / later_total - winner.early / early_total END AS early_winner_gain
FROM ads
ORDER BY ad_id
