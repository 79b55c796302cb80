-- One row per ad, in order of ad_id: the row's number (rowid) is a number to cluster by.
SELECT DISTINCT ad_id FROM raw_multitext_ads
ORDER BY ad_id
