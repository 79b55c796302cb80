-- Offenders: a variant paired with itself, a pair in the wrong order (the left number is the smaller one), or one that
-- occurs twice: it would count double.
SELECT left_variant, right_variant, count(*) AS rows FROM pairs
GROUP BY left_variant, right_variant
HAVING left_variant >= right_variant OR count(*) > 1
ORDER BY left_variant, right_variant
