-- Offenders: pairs with a side that is no variant, or with sides of two ads. They would compare the wrong texts.
SELECT pairs.* FROM pairs
LEFT JOIN variants AS l ON pairs.left_variant = l.variant
LEFT JOIN variants AS r ON pairs.right_variant = r.variant
WHERE l.ad IS DISTINCT FROM r.ad OR l.ad IS NULL
ORDER BY pairs.left_variant, pairs.right_variant
