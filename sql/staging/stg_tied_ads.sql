-- One row per ad and tie of this $round that it shares with an ad of smaller number: an edge to the tie's first ad.
WITH own AS MATERIALIZED (
    SELECT ad, tie FROM stg_ad_ties WHERE round = $round
),

shared AS (
    SELECT tie, min(ad) AS first_ad FROM own GROUP BY tie HAVING max(ad) > min(ad)
)

SELECT DISTINCT own.ad, shared.first_ad
FROM own
INNER JOIN shared USING (tie)
WHERE own.ad <> shared.first_ad
ORDER BY own.ad
