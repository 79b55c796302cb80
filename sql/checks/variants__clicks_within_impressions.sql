-- Offenders: variants with more clicks than impressions, or without impressions. Their CTR means nothing.
SELECT * FROM variants
WHERE impressions < 1 OR clicks < 0 OR clicks > impressions
ORDER BY ad, variant_id
