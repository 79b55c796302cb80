-- One row per ad and tie it shares with an ad of smaller number: an edge to the tie's first ad.
WITH ties AS (
    SELECT stg_ads.rowid AS ad, stg_ad_ties.tie
    FROM stg_ad_ties
    INNER JOIN stg_ads USING (ad_id)
),

shared AS (
    SELECT tie, min(ad) AS first_ad FROM ties GROUP BY tie HAVING count(*) > 1
)

SELECT DISTINCT ties.ad, shared.first_ad
FROM ties
INNER JOIN shared USING (tie)
WHERE ties.ad <> shared.first_ad
