-- One row per pair of near-duplicate texts that differ: text and like_text are hashes of their sets of word pairs, whose
-- Jaccard similarity is at least $similarity (above a half, below 1).
--
-- All such texts are found, none by chance: put all word pairs in one order; of two sets that similar, both have two in
-- common among their size - ceil(similarity * size) + 2 first (prefix filter, Chaudhuri et al. 2006; two in common: Wang
-- et al. 2012). Rare ones come first, as far as counts in 2^20 buckets tell, so that few texts share two firsts by
-- chance and boilerplate does not count. Sets smaller than `large` are this similar only when they are equal: one word
-- pair more or less is too much.
WITH large AS MATERIALIZED (
    SELECT hash(shingles) AS text, len(shingles) AS size, shingles
    FROM (SELECT DISTINCT shingles FROM stg_ad_texts)
    WHERE len(shingles) >= $similarity / (1 - $similarity) - 1e-9
),

bucket_counts AS (
    SELECT (shingle % 1048576)::INTEGER AS bucket, count(*) AS times
    FROM (SELECT unnest(shingles) AS shingle FROM large)
    GROUP BY bucket
),

frequency AS (
    SELECT list(coalesce(times, 0)::UBIGINT ORDER BY bucket) AS of_bucket
    FROM range(1048576) AS buckets(bucket)
    LEFT JOIN bucket_counts USING (bucket)
),

firsts AS (
    SELECT
        text,
        size,
        list_sort(
            list_transform(shingles, lambda s: (of_bucket[(s % 1048576)::INTEGER + 1] << 32) | (s >> 32))
        )[:(size - ceil($similarity * size - 1e-9))::INTEGER + 2] AS firsts
    FROM large, frequency
),

two_firsts AS MATERIALIZED (
    SELECT
        text,
        size,
        unnest(
            flatten(list_transform(firsts, lambda one, place: list_transform(firsts[place + 1:], lambda next: hash(one, next))))
        ) AS two
    FROM firsts
),

candidates AS (
    SELECT DISTINCT l.text, r.text AS like_text
    FROM two_firsts AS l
    INNER JOIN two_firsts AS r
        ON l.two = r.two
        AND l.text < r.text
        AND least(l.size, r.size) >= $similarity * greatest(l.size, r.size) - 1e-9
)

SELECT candidates.text, candidates.like_text
FROM candidates
INNER JOIN large AS l ON candidates.text = l.text
INNER JOIN large AS r ON candidates.like_text = r.text
WHERE
    len(list_intersect(l.shingles, r.shingles))
    >= $similarity * (l.size + r.size - len(list_intersect(l.shingles, r.shingles))) - 1e-9
