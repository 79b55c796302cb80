-- Offenders: texts that ads of several splits share. A model would be tested on a text whose clicks it learned.
SELECT raw_multitext_ads.text, list(DISTINCT splits.split ORDER BY splits.split) AS splits
FROM raw_multitext_ads
INNER JOIN splits USING (ad_id)
GROUP BY raw_multitext_ads.text
HAVING count(DISTINCT splits.split) > 1
ORDER BY raw_multitext_ads.text
