-- One row per ad and thing it shares with its like: its advertiser, each of its texts in lower case without punctuation
-- (a text of punctuation alone stays as it is), and each such text that is nearly one of its own.
--
-- Nearly: the sets of word pairs of both texts have a Jaccard similarity of at least $similarity (below 1). All such
-- texts are found, none by chance: of two sets that similar, each has one of its size - ceil(similarity * size) + 1
-- first pairs in common with the other, whatever order all pairs are put in (prefix filter, Chaudhuri et al. 2006;
-- Bayardo et al. 2007). Frequent pairs come last, so that few texts are compared. A pair of words is a 64-bit hash.
WITH ad_texts AS (
    SELECT DISTINCT
        ad_id,
        coalesce(
            nullif(trim(regexp_replace(regexp_replace(lower(text), '[\pP\pS]+', '', 'g'), '\s+', ' ', 'g')), ''), text
        ) AS text
    FROM raw_multitext_ads
),

texts AS (
    SELECT
        text,
        row_number() OVER () AS id,
        list_sort(
            list_distinct(list_transform(range(greatest(len(words) - 1, 1)), lambda i: hash(words[i + 1], words[i + 2])))
        ) AS shingles
    FROM (SELECT text, string_split(text, ' ') AS words FROM (SELECT DISTINCT text FROM ad_texts))
),

-- Smaller sets are this similar only when they are equal: one pair more or less is too much.
large AS (
    SELECT id, len(shingles) AS size, shingles FROM texts
    WHERE len(shingles) >= $similarity / (1 - $similarity) - 1e-9
),

shingles AS (
    SELECT id, size, unnest(shingles) AS shingle FROM large
),

frequent AS (
    SELECT shingle FROM shingles GROUP BY shingle HAVING count(*) > 100
),

firsts AS (
    SELECT
        id,
        any_value(size) AS size,
        list(shingle ORDER BY frequent.shingle IS NOT NULL, shingle)
            [:any_value(size - ceil($similarity * size - 1e-9)::BIGINT + 1)] AS shingles
    FROM shingles
    LEFT JOIN frequent USING (shingle)
    GROUP BY id
),

indexed AS (
    SELECT id, size, unnest(shingles) AS shingle FROM firsts
),

candidates AS (
    SELECT DISTINCT l.id AS left_id, r.id AS right_id
    FROM indexed AS l
    INNER JOIN indexed AS r
        ON l.shingle = r.shingle AND l.id < r.id AND least(l.size, r.size) >= $similarity * greatest(l.size, r.size) - 1e-9
),

near AS (
    SELECT l.text, r.text AS like_text
    FROM candidates
    INNER JOIN texts AS l ON l.id = left_id
    INNER JOIN texts AS r ON r.id = right_id
    WHERE
        len(list_intersect(l.shingles, r.shingles))
        >= $similarity * (len(l.shingles) + len(r.shingles) - len(list_intersect(l.shingles, r.shingles))) - 1e-9
    UNION ALL
    SELECT unnest(list(text)) AS text, min(text) AS like_text
    FROM texts
    GROUP BY shingles
    HAVING count(*) > 1
)

SELECT ad_id, 'text:' || text AS tie FROM ad_texts
UNION
SELECT ad_texts.ad_id, 'text:' || near.like_text AS tie
FROM near
INNER JOIN ad_texts USING (text)
UNION
SELECT DISTINCT ad_id, 'advertiser:' || advertiser_id AS tie
FROM raw_multitext_ads
WHERE advertiser_id IS NOT NULL
