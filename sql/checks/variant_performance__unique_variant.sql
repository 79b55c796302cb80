-- Offenders: variant ids that stand for several texts of one ad. Pairs would join the wrong texts.
SELECT ad_id, variant_id, count(*) AS rows
FROM variant_performance
GROUP BY ad_id, variant_id
HAVING count(*) > 1
ORDER BY ad_id, variant_id
