-- One row per source: the empirical-Bayes prior of a text's CTR, as Beta(centre * strength, (1 - centre) * strength)
-- around the CTR of its ad. The strength says how alike the texts of one ad are, in impressions that the prior is worth.
--
-- Clicks of a text are beta-binomial within its ad, with intra-class correlation rho = 1 / (strength + 1). Pearson's
-- statistic over the texts of an ad has expectation sum((1 + (n - 1) rho) (1 - n / N)), n being a text's impressions
-- and N the ad's; rho makes the sum over all ads of a source equal to what was observed (method of moments). Differences
-- between ads do not enter: a pair never compares across ads. $prior_strength: a strength to use instead, or null.
-- Decimals, because their sum does not depend on the order of the rows.
WITH ads AS (
    SELECT
        ad_id,
        any_value(source) AS source,
        count(*) AS texts,
        sum(clicks) AS clicks,
        sum(impressions) AS impressions,
        sum(clicks) / sum(impressions) AS ctr
    FROM variant_performance
    GROUP BY ad_id
),

moments AS (
    SELECT
        texts.source,
        sum(
            (texts.impressions * (texts.ctr - ads.ctr) * (texts.ctr - ads.ctr) / (ads.ctr * (1 - ads.ctr))
                - (1 - texts.impressions / ads.impressions))::DECIMAL(28, 9)
        )::DOUBLE AS excess,
        sum(((texts.impressions - 1) * (1 - texts.impressions / ads.impressions))::DECIMAL(28, 9))::DOUBLE AS leverage
    FROM variant_performance AS texts
    INNER JOIN ads USING (ad_id)
    WHERE ads.texts > 1 AND ads.clicks > 0 AND ads.clicks < ads.impressions
    GROUP BY texts.source
),

sources AS (
    SELECT source, count(*) AS ads, (sum(clicks) + 0.5::DOUBLE) / (sum(impressions) + 1) AS ctr
    FROM ads
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
