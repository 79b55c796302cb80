-- One row per ad and text: the text's word pairs as a sorted set of 64-bit hashes. Case and punctuation do not count,
-- except in a text of punctuation alone; a text of one word is a set of one.
SELECT DISTINCT
    stg_ads.rowid AS ad,
    list_sort(
        list_distinct(list_transform(range(greatest(len(words) - 1, 1)), lambda i: hash(words[i + 1], words[i + 2])))
    ) AS shingles
FROM (
    SELECT
        ad_id,
        string_split(
            coalesce(
                nullif(trim(regexp_replace(regexp_replace(lower(text), '[\pP\pS]+', '', 'g'), '\s+', ' ', 'g')), ''), text
            ), ' '
        ) AS words
    FROM (SELECT DISTINCT ad_id, text FROM raw_multitext_ads)
)
INNER JOIN stg_ads USING (ad_id)
