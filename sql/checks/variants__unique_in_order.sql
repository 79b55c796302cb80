-- Offenders: variants that do not come after the one before them by ad and variant_id: ids that stand for several texts of
-- one ad, or rows whose number is not their place. Pairs would join the wrong texts.
SELECT variants.*, former.ad AS former_ad, former.variant_id AS former_variant_id
FROM variants
INNER JOIN variants AS former ON variants.variant = former.variant + 1
WHERE (former.ad, former.variant_id) >= (variants.ad, variants.variant_id)
ORDER BY variants.ad, variants.variant_id
