-- Offenders: clusters (ads that share an advertiser or a near-duplicate text) in several splits: the tests would leak.
SELECT cluster, list(DISTINCT split ORDER BY split) AS splits
FROM splits
GROUP BY cluster
HAVING count(DISTINCT split) > 1
ORDER BY cluster
