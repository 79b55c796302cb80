-- One row per unordered pair of variants of one ad, both shown at least $min_impressions times, in order of both; sides
-- are numbers of `variants`, the left one the smaller. $first_ad, $last_ad: whose pairs to make.
-- $min_effect, $max_p_value (null: none), $max_pairs_per_ad (null: all), $min_evenness: which pairs are kept.
-- $weigh_evenness: whether weights also count how evenly the ad was delivered (marts/delivery.sql).
--
-- With CTR ~ Beta(a, b), the log odds have mean digamma(a) - digamma(b) and variance trigamma(a) + trigamma(b), exactly;
-- effect and z are of the difference between two variants.
-- p_left_better: P(Z < z), except where a is small and the log odds are skewed: below shape 16 odds are taken for a gamma
-- variable of shape a b / (a + b), and two of these are compared. Against integration p is off by at most 0.015, whatever
-- strength, clicks and impressions (0.004 where an a is below 1). Where a posterior mean CTR is above 0.3 it is always
-- P(Z < z): off by at most 0.03 where all a and b are 4 or more, 0.05 where they are 1 or more, 0.16 below.
-- The prior (ctr_priors) is centred on the ad's own CTR, to which one click at the source's CTR is added.
--
-- Variants of an ad have consecutive numbers, so the right sides of a left one are the numbers up to the ad's last: each is
-- looked up by itself, and no pair is made that is not wanted.
WITH shown AS (
    SELECT variant, ad, impressions, clicks, split
    FROM variants
    WHERE impressions >= $min_impressions AND ad BETWEEN $first_ad AND $last_ad
),

totals AS (
    SELECT
        ad,
        max(variant) AS last_variant,
        sum(impressions) AS impressions,
        sum(clicks) AS clicks,
        count(*) * (count(*) - 1) // 2 AS possible_pairs,
        sum(impressions) * sum(impressions)::DOUBLE / (count(*) * sum(impressions * impressions::DOUBLE)) AS evenness
    FROM shown
    GROUP BY ad
    HAVING count(*) > 1 AND evenness >= $min_evenness - 1e-9
),

centres AS (
    SELECT
        totals.ad,
        totals.last_variant,
        totals.possible_pairs,
        CASE WHEN $weigh_evenness THEN totals.evenness ELSE 1 END AS evenness,
        (totals.clicks + 1) / (totals.impressions + 1 / priors.ctr) AS centre,
        priors.prior_strength AS strength
    FROM totals
    INNER JOIN (SELECT ad, source FROM ads WHERE ad BETWEEN $first_ad AND $last_ad) USING (ad)
    INNER JOIN ctr_priors AS priors USING (source)
),

posteriors AS (
    SELECT
        shown.*,
        centres.last_variant,
        centres.possible_pairs,
        centres.evenness,
        centres.centre * centres.strength + shown.clicks AS a,
        (1 - centres.centre) * centres.strength + (shown.impressions - shown.clicks) AS b
    FROM shown
    INNER JOIN centres USING (ad)
),

log_odds AS MATERIALIZED (
    SELECT
        variant,
        ad,
        impressions,
        clicks,
        split,
        last_variant,
        possible_pairs,
        evenness,
        digamma(a) - digamma(b) AS mean,
        trigamma(a) + trigamma(b) AS variance,
        CASE WHEN a <= 0.3 * (a + b) THEN a * b / (a + b) END AS shape,
        b * b / (a + b + 1) AS rate
    FROM posteriors
),

lefts AS (
    SELECT *, unnest(range(variant + 1, last_variant + 1))::INTEGER AS right_variant FROM log_odds
),

sides AS NOT MATERIALIZED (
    SELECT
        l.ad,
        l.variant AS left_variant,
        l.right_variant,
        l.possible_pairs,
        l.mean - r.mean AS effect,
        (l.mean - r.mean) / sqrt(l.variance + r.variance) AS z,
        CASE WHEN l.shape >= 16 AND r.shape >= 16 OR l.shape + r.shape IS NULL THEN z
            ELSE larger_gammas_z(l.shape, l.rate, r.shape, r.rate) END AS normal_z,
        CASE WHEN l.shape < 16 OR r.shape < 16 THEN over_larger_gammas(l.shape, l.rate, r.shape, r.rate) END AS over,
        l.clicks / l.impressions AS left_ctr,
        r.clicks / r.impressions AS right_ctr,
        (l.clicks + r.clicks) / (l.impressions + r.impressions) AS pooled_ctr,
        1 / l.impressions + 1 / r.impressions AS inverse_impressions,
        least(l.impressions, r.impressions) AS exposure,
        l.evenness,
        l.split
    FROM lefts AS l
    INNER JOIN log_odds AS r ON l.right_variant = r.variant
),

pooled AS NOT MATERIALIZED (
    SELECT
        *,
        abs(left_ctr - right_ctr) / nullif(sqrt(pooled_ctr * (1 - pooled_ctr) * inverse_impressions), 0) AS pooled_z
    FROM sides
),

wanted AS NOT MATERIALIZED (
    SELECT
        *,
        greatest(least(lower_tail(normal_z) + coalesce(over, 0), 1), 0) AS p_left_better,
        -- No click at all, or a click on every impression: nothing speaks against equal CTRs.
        2 * upper_tail(coalesce(pooled_z, 0)) AS p_value
    FROM pooled
    WHERE abs(effect) >= $min_effect AND ($max_p_value IS NULL OR p_value <= $max_p_value)
),

names AS (
    SELECT variants.variant, ads.ad_id, variants.variant_id
    FROM variants
    INNER JOIN ads USING (ad)
    WHERE ad BETWEEN $first_ad AND $last_ad AND $max_pairs_per_ad IS NOT NULL
),

-- Only ads with too many pairs are sampled, by a hash: the same pairs on every run, whatever else is in the table.
sampled AS (
    SELECT wanted.*
    FROM wanted
    INNER JOIN names AS l ON wanted.left_variant = l.variant
    INNER JOIN names AS r ON wanted.right_variant = r.variant
    WHERE wanted.possible_pairs > $max_pairs_per_ad
    QUALIFY
        row_number() OVER (
            PARTITION BY wanted.ad
            ORDER BY md5(concat_ws(chr(31), l.ad_id, l.variant_id, r.variant_id)), wanted.left_variant, wanted.right_variant
        ) <= $max_pairs_per_ad
),

kept AS (
    FROM wanted WHERE coalesce(possible_pairs <= $max_pairs_per_ad, true)
    UNION ALL
    FROM sampled
)

SELECT
    left_variant,
    right_variant,
    exposure,
    effect,
    z,
    p_left_better,
    p_value,
    evenness * ln(1 + exposure) AS weight,
    split
FROM kept
ORDER BY left_variant, right_variant
