-- One row per pair of near-duplicate texts that differ: text and like_text are hashes of their sets of word pairs, whose
-- Jaccard similarity is at least $similarity. All such texts are among the candidates, none is found by chance.
WITH candidates AS MATERIALIZED (
    SELECT DISTINCT text, like_text FROM stg_near_candidates
),

sets AS MATERIALIZED (
    SELECT DISTINCT text, shingles
    FROM stg_ad_texts
    SEMI JOIN (SELECT text FROM candidates UNION ALL SELECT like_text FROM candidates) USING (text)
)

SELECT candidates.text, candidates.like_text
FROM candidates
INNER JOIN sets AS l ON candidates.text = l.text
INNER JOIN sets AS r ON candidates.like_text = r.text
WHERE
    len(list_intersect(l.shingles, r.shingles))
    >= $similarity * (len(l.shingles) + len(r.shingles) - len(list_intersect(l.shingles, r.shingles))) - 1e-9
