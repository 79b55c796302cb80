-- Offenders: advertisers with ads in several splits. Their style leaks from training into the tests. A single advertiser
-- is none: its ads are all there is to learn from and to test on.
SELECT raw_multitext_ads.advertiser_id, list(DISTINCT splits.split ORDER BY splits.split) AS splits
FROM raw_multitext_ads
INNER JOIN splits USING (ad_id)
WHERE
    raw_multitext_ads.advertiser_id IS NOT NULL
    AND (SELECT min(advertiser_id) < max(advertiser_id) OR bool_or(advertiser_id IS NULL) FROM raw_multitext_ads)
GROUP BY raw_multitext_ads.advertiser_id
HAVING count(DISTINCT splits.split) > 1
ORDER BY raw_multitext_ads.advertiser_id
