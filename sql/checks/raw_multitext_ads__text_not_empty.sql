-- Offenders: rows whose text is missing or blank. The source let them through; nothing can be learned from them.
SELECT * FROM raw_multitext_ads
WHERE text IS NULL OR regexp_full_match(trim(text), '\s*')
ORDER BY ad_id, variant_id
