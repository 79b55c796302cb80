-- One row per split, decade of exposure and significance: what the labels of `pairs` add up to, in one pass over them.
-- exposure_from: pairs whose smaller side has this many impressions or more, less than ten times as many; null for ties
-- (equal observed CTRs). significant: p-value below 0.05. sure: sum of the probability that the favoured side is better.
-- Sums of whole numbers, because they do not depend on the order of the rows.
SELECT
    split,
    CASE WHEN p_value < 1 THEN 10 ** floor(log10(exposure)) END::BIGINT AS exposure_from,
    p_value < 0.05 AS significant,
    count(*) AS pairs,
    sum((weight * 1e6)::BIGINT)::DOUBLE / 1e6 AS weight,
    sum((greatest(p_left_better, 1 - p_left_better) * 1e12)::BIGINT)::DOUBLE / 1e12 AS sure
FROM pairs
GROUP BY ALL
ORDER BY ALL
