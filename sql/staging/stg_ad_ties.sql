-- One row per ad and thing it shares with its like: its advertiser, each of its texts in lower case without punctuation
-- (a text of punctuation alone stays as it is), and each such text that is nearly one of its own.
--
-- Nearly: the sets of word pairs of both texts have a Jaccard similarity of at least $similarity. All such texts are
-- found, none by chance: sets that similar share one of the few rarest pairs of either (prefix filter, Chaudhuri et al.
-- 2006; Bayardo et al. 2007), so only texts with a rare pair in common are compared.
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
        list_distinct(
            list_transform(range(greatest(len(words) - 1, 1)), lambda i: array_to_string(words[i + 1:i + 2], ' '))
        ) AS shingles
    FROM (SELECT text, string_split(text, ' ') AS words FROM (SELECT DISTINCT text FROM ad_texts))
),

shingles AS (
    SELECT id, len(shingles) AS size, unnest(shingles) AS shingle FROM texts
),

ranked AS (
    SELECT
        id,
        size,
        shingle,
        frequency,
        row_number() OVER (PARTITION BY id ORDER BY frequency, shingle) AS place
    FROM shingles
    INNER JOIN (SELECT shingle, count(*) AS frequency FROM shingles GROUP BY shingle) USING (shingle)
),

rarest AS (
    SELECT id, size, shingle FROM ranked
    WHERE frequency > 1 AND place <= size - ceil($similarity * size - 1e-9) + 1
),

candidates AS (
    SELECT DISTINCT l.id AS left_id, r.id AS right_id
    FROM rarest AS l
    INNER JOIN rarest AS r
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
