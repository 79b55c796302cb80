-- One row per ad: its number in order of ad_id, its cluster, which is the number of the cluster's first ad, and the split
-- that a hash of that ad's ad_id and the seed draws: the same on every run, whatever other clusters come or go.
-- $test, $validation, $evaluation: expected shares of clusters; the rest is train.
WITH drawn AS (
    SELECT
        ads.rowid::INTEGER AS ad,
        ads.ad_id,
        firsts.rowid::INTEGER AS cluster,
        ('0x' || left(sha256($seed::VARCHAR || ':' || firsts.ad_id), 16))::UBIGINT / 2e0 ** 64 AS draw
    FROM ad_clusters
    INNER JOIN stg_ads AS ads ON ad_clusters.ad = ads.rowid
    INNER JOIN stg_ads AS firsts ON ad_clusters.first_ad = firsts.rowid
)

SELECT
    ad,
    ad_id,
    cluster,
    CASE
        WHEN draw < $validation THEN 'validation'
        WHEN draw < $validation + $test THEN 'test'
        WHEN draw < $validation + $test + $evaluation THEN 'evaluation'
        ELSE 'train'
    END AS split
FROM drawn
