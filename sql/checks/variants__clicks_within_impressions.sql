-- Offenders: variants with more clicks than impressions, or without impressions. Their CTR means nothing.
SELECT * FROM variants
WHERE NOT coalesce(impressions >= 1 AND clicks BETWEEN 0 AND impressions, false)
ORDER BY ad, variant_id
