-- Offenders: pairs whose probability, p-value or weight is no number in its range. The prior or the counts are wrong.
SELECT * FROM pairs
WHERE NOT coalesce(
    p_left_better BETWEEN 0 AND 1 AND p_value BETWEEN 0 AND 1 AND isfinite(z) AND isfinite(weight) AND weight > 0, false
)
ORDER BY left_variant, right_variant
