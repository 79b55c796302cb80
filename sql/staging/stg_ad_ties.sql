-- One row per ad and thing it shares with its like: its advertiser, each of its texts, and each text nearly one of its
-- own. Things are 64-bit hashes: should two meet by chance, two clusters become one, which leaks nothing.
SELECT ad, hash(shingles) AS tie FROM stg_ad_texts
UNION ALL
SELECT stg_ad_texts.ad, near.text AS tie
FROM stg_near_texts AS near
INNER JOIN stg_ad_texts ON near.like_text = hash(stg_ad_texts.shingles)
UNION ALL
SELECT stg_ads.rowid AS ad, hash('advertiser', advertiser_id) AS tie
FROM (SELECT DISTINCT ad_id, advertiser_id FROM raw_multitext_ads WHERE advertiser_id IS NOT NULL)
INNER JOIN stg_ads USING (ad_id)
