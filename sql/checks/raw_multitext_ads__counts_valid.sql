-- Offenders: rows without impressions, or with clicks below 0 or above impressions. The source let bad counts through.
SELECT * FROM raw_multitext_ads
WHERE impressions IS NULL OR clicks IS NULL OR impressions < 1 OR clicks < 0 OR clicks > impressions
ORDER BY ad_id, variant_id
