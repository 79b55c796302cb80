-- One row per source: the empirical-Bayes prior of a text's CTR, as Beta(centre * strength, (1 - centre) * strength)
-- around the CTR of its ad. The strength says how alike the texts of one ad are, in impressions that the prior is worth.
--
-- Clicks of a text are beta-binomial within its ad, with intra-class correlation rho = 1 / (strength + 1). Pearson's
-- statistic over the texts of an ad has expectation sum((1 + (n - 1) rho) (1 - n / N)), n being a text's impressions
-- and N the ad's; rho makes the sum over all ads of a source equal to what was observed (method of moments). Differences
-- between ads do not enter: a pair never compares across ads. $prior_strength: a strength to use instead, or null.
-- Decimals, because their sum does not depend on the order of the rows.
WITH totals AS (
    SELECT
        variants.ad,
        any_value(ads.source) AS source,
        count(*) AS texts,
        sum(variants.clicks) AS clicks,
        sum(variants.impressions) AS impressions,
        sum(variants.clicks) / sum(variants.impressions) AS ctr
    FROM variants
    INNER JOIN ads ON variants.ad = ads.ad
    GROUP BY variants.ad
),

shares AS (
    SELECT
        totals.source,
        variants.impressions,
        variants.impressions / totals.impressions AS share,
        variants.clicks / variants.impressions - totals.ctr AS deviation,
        totals.ctr * (1 - totals.ctr) AS variance
    FROM variants
    INNER JOIN totals USING (ad)
    WHERE totals.texts > 1 AND totals.clicks > 0 AND totals.clicks < totals.impressions
),

moments AS (
    SELECT
        source,
        sum((impressions * deviation * deviation / variance - (1 - share))::DECIMAL(28, 9))::DOUBLE AS excess,
        sum(((impressions - 1) * (1 - share))::DECIMAL(28, 9))::DOUBLE AS leverage
    FROM shares
    GROUP BY source
),

sources AS (
    SELECT source, count(*) AS ads, (sum(clicks) + 0.5::DOUBLE) / (sum(impressions) + 1) AS ctr
    FROM totals
    GROUP BY source
),

correlations AS (
    SELECT source, sources.ads, sources.ctr, greatest(excess / nullif(leverage, 0), 0) AS correlation
    FROM sources
    LEFT JOIN moments USING (source)
)

SELECT
    source,
    ads,
    ctr,
    correlation,
    -- Texts that differ no more than chance: a million impressions, far more than any text has to say against it.
    coalesce($prior_strength::DOUBLE, greatest(least(1 / nullif(correlation, 0) - 1, 1e6), 1), 1e6) AS prior_strength
FROM correlations
ORDER BY source
