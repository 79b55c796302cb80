-- One row per ad with several texts: how evenly its impressions were delivered, and whether an early winner got more.
-- Where a platform chooses what to show, a text's CTR is that of the people it was shown to.
--
-- evenness: effective number of texts, (sum n)^2 / sum n^2, over their number: 1 when all had the same impressions.
-- early_winner_gain: later less early share of impressions of the text with the highest CTR in the ad's first period;
-- null with one period. Its mean is 0 when delivery does not look at clicks.
WITH firsts AS (
    SELECT ad_id, min(period) AS period FROM raw_multitext_ads GROUP BY ad_id
),

texts AS (
    SELECT
        raw.ad_id,
        raw.text,
        sum(raw.impressions) AS impressions,
        sum(raw.impressions) FILTER (raw.period = firsts.period) AS early_impressions,
        sum(raw.clicks) FILTER (raw.period = firsts.period) AS early_clicks
    FROM raw_multitext_ads AS raw
    INNER JOIN firsts USING (ad_id)
    GROUP BY raw.ad_id, raw.text
),

ads AS (
    SELECT
        ad_id,
        count(*) AS variants,
        sum(impressions) AS total,
        sum(early_impressions) AS early_total,
        sum(impressions * impressions::DOUBLE) AS squares,
        arg_max(
            {'early': early_impressions, 'later': impressions - early_impressions},
            (early_clicks / early_impressions, md5(text))
        ) AS winner
    FROM texts
    GROUP BY ad_id
    HAVING count(*) > 1
)

SELECT
    ad_id,
    variants,
    total * total::DOUBLE / (variants * squares) AS evenness,
    CASE
        WHEN total > early_total THEN winner.later / (total - early_total) - winner.early / early_total
    END AS early_winner_gain
FROM ads
