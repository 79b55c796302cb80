-- One row per ad and tie it shares with an ad of smaller number: an edge to the tie's first ad.
WITH shared AS (
    SELECT tie, min(ad) AS first_ad FROM stg_ad_ties GROUP BY tie HAVING max(ad) > min(ad)
)

SELECT DISTINCT ties.ad::INTEGER AS ad, shared.first_ad::INTEGER AS first_ad
FROM stg_ad_ties AS ties
INNER JOIN shared USING (tie)
WHERE ties.ad <> shared.first_ad
