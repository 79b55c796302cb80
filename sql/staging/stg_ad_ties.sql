-- One row per ad of a range and thing it shares with its like, by the round (of $rounds) that looks for its like: its
-- advertiser (where $several_advertisers: a single one would tie all ads into one cluster, and nothing could be held out),
-- each of its texts, and each text nearly one of its own. Things are 64-bit hashes: should two meet by chance,
-- two clusters become one, which leaks nothing.
WITH ties AS (
    SELECT ad, text AS tie FROM stg_ad_texts WHERE ad BETWEEN $first_ad AND $last_ad
    UNION ALL
    SELECT stg_ad_texts.ad, near.text AS tie
    FROM stg_near_texts AS near
    INNER JOIN stg_ad_texts ON near.like_text = stg_ad_texts.text
    WHERE stg_ad_texts.ad BETWEEN $first_ad AND $last_ad
    UNION ALL
    SELECT stg_ads.rowid AS ad, hash('advertiser', advertiser_id) AS tie
    FROM (
        SELECT DISTINCT ad_id, advertiser_id FROM raw_multitext_ads
        WHERE $several_advertisers AND ad_id BETWEEN $first_id AND $last_id AND advertiser_id IS NOT NULL
    )
    INNER JOIN stg_ads USING (ad_id)
)

SELECT (tie % $rounds)::INTEGER AS round, ad::INTEGER AS ad, tie
FROM ties
ORDER BY round
