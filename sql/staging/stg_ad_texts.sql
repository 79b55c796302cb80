-- One row per ad from $first_id to $last_id and text: the text's word pairs as a sorted set of 64-bit hashes, and the hash
-- of that set. Case and punctuation do not count, except in a text of punctuation alone; a text of one word is a set of one.
-- Signs that show nothing (format characters, variation selectors) go with the emoji that they belong to.
WITH words_of_ads AS (
    SELECT
        stg_ads.rowid AS ad,
        text AS as_it_is,
        list_filter(
            string_split(regexp_replace(lower(text), '[\pP\pS\p{Cf}\p{Me}\x{FE00}-\x{FE0F}]+', '', 'g'), ' '), lambda word: word <> ''
        ) AS words
    FROM (SELECT DISTINCT ad_id, text FROM raw_multitext_ads WHERE ad_id BETWEEN $first_id AND $last_id)
    INNER JOIN stg_ads USING (ad_id)
    WHERE ad_id BETWEEN $first_id AND $last_id
),

sets AS (
    SELECT DISTINCT
        ad,
        CASE
            WHEN len(words) = 0 THEN [hash(as_it_is)]
            ELSE list_sort(list_distinct(
                list_transform(range(greatest(len(words) - 1, 1)), lambda i: hash(words[i + 1], words[i + 2]))
            ))
        END AS shingles
    FROM words_of_ads
)

SELECT ad, hash(shingles) AS text, shingles
FROM sets
ORDER BY ad
