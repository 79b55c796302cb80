-- One row per unordered pair of variants of one ad, both shown at least $min_impressions times.
-- $min_effect, $max_p_value (null: none), $max_pairs_per_ad (null: all), $min_evenness: which pairs are kept.
-- $weigh_evenness: whether weights also count how evenly the ad was delivered (marts/delivery.sql).
--
-- p_left_better: with CTR ~ Beta(a, b), the log odds have mean digamma(a) - digamma(b) and variance
-- trigamma(a) + trigamma(b), exactly; their difference between two variants is taken as
-- normal. Against integration p is off by at most 0.01 where both a are 32 or more, by 0.05 where one is 2.
-- The prior (ctr_priors) is centred on the ad's own CTR, to which one click at the source's CTR is added.
WITH shown AS (
    SELECT * FROM variant_performance WHERE impressions >= $min_impressions
),

ads AS (
    SELECT
        shown.ad_id,
        any_value(priors.prior_strength) AS strength,
        (sum(shown.clicks) + 1) / (sum(shown.impressions) + 1 / any_value(priors.ctr)) AS centre,
        count(*) * (count(*) - 1) / 2 AS possible_pairs,
        sum(shown.impressions) * sum(shown.impressions)::DOUBLE
            / (count(*) * sum(shown.impressions * shown.impressions::DOUBLE)) AS evenness
    FROM shown
    INNER JOIN ctr_priors AS priors USING (source)
    GROUP BY shown.ad_id
    HAVING count(*) > 1 AND evenness >= $min_evenness - 1e-9
),

posteriors AS (
    SELECT
        shown.*,
        ads.possible_pairs,
        CASE WHEN $weigh_evenness THEN ads.evenness ELSE 1 END AS evenness,
        ads.centre * ads.strength + shown.clicks AS a,
        (1 - ads.centre) * ads.strength + shown.impressions - shown.clicks AS b
    FROM shown
    INNER JOIN ads USING (ad_id)
),

log_odds AS (
    SELECT *, digamma(a) - digamma(b) AS mean, trigamma(a) + trigamma(b) AS variance
    FROM posteriors
),

pairs AS (
    SELECT
        l.ad_id,
        l.variant_id AS left_id,
        r.variant_id AS right_id,
        l.impressions AS left_impressions,
        l.clicks AS left_clicks,
        r.impressions AS right_impressions,
        r.clicks AS right_clicks,
        l.mean - r.mean AS effect,
        (l.mean - r.mean) / sqrt(l.variance + r.variance) AS z,
        (l.clicks + r.clicks) / (l.impressions + r.impressions) AS pooled_ctr,
        -- Decimal, because its average does not depend on the order of the rows.
        (l.evenness * ln(1 + least(l.impressions, r.impressions)))::DECIMAL(18, 9) AS exposure,
        l.possible_pairs,
        l.split
    FROM log_odds AS l
    INNER JOIN log_odds AS r ON l.ad_id = r.ad_id AND l.variant_id < r.variant_id
),

pooled AS (
    SELECT
        *,
        abs(left_clicks / left_impressions - right_clicks / right_impressions)
            / nullif(sqrt(pooled_ctr * (1 - pooled_ctr) * (1 / left_impressions + 1 / right_impressions)), 0) AS pooled_z
    FROM pairs
),

judged AS (
    SELECT
        *,
        -- One branch per sign: exchanging the sides then turns p into 1 - p to the bit; equal posteriors give one half.
        CASE WHEN z = 0 THEN 0.5 WHEN z > 0 THEN 1 - upper_tail(z) ELSE upper_tail(-z) END::DOUBLE AS p_left_better,
        -- No click at all, or a click on every impression: nothing speaks against equal CTRs.
        CASE WHEN coalesce(pooled_z, 0) = 0 THEN 1 ELSE 2 * upper_tail(pooled_z) END::DOUBLE AS p_value
    FROM pooled
),

wanted AS (
    SELECT * FROM judged
    WHERE abs(effect) >= $min_effect AND ($max_p_value IS NULL OR p_value <= $max_p_value)
),

-- Only ads with too many pairs are sampled, by a hash: the same pairs on every run, whatever else is in the table.
kept AS (
    SELECT * FROM wanted WHERE coalesce(possible_pairs <= $max_pairs_per_ad, true)
    UNION ALL
    SELECT * FROM wanted
    WHERE possible_pairs > $max_pairs_per_ad
    QUALIFY
        row_number() OVER (PARTITION BY ad_id ORDER BY md5(concat_ws(chr(31), ad_id, left_id, right_id)), left_id, right_id)
        <= $max_pairs_per_ad
)

SELECT
    ad_id,
    left_id,
    right_id,
    left_impressions,
    left_clicks,
    right_impressions,
    right_clicks,
    effect,
    z,
    p_left_better,
    p_value,
    exposure::DOUBLE / avg(exposure) OVER () AS weight,
    split
FROM kept
