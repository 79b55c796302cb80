-- Offenders: advertisers with ads in several splits. Their style leaks from training into the tests.
SELECT raw_multitext_ads.advertiser_id, list(DISTINCT splits.split ORDER BY splits.split) AS splits
FROM raw_multitext_ads
INNER JOIN splits USING (ad_id)
WHERE raw_multitext_ads.advertiser_id IS NOT NULL
GROUP BY raw_multitext_ads.advertiser_id
HAVING count(DISTINCT splits.split) > 1
ORDER BY raw_multitext_ads.advertiser_id
