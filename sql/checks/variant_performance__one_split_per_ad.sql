-- Offenders: ads whose variants lie in several splits. A model would be tested on an ad that it learned from.
SELECT ad_id, list(DISTINCT split ORDER BY split) AS splits
FROM variant_performance
GROUP BY ad_id
HAVING count(DISTINCT split) > 1
ORDER BY ad_id
