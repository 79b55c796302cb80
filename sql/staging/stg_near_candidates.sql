-- One row per pair of texts that share a pair of first word pairs of this $round and are not too different in size.
WITH own AS MATERIALIZED (
    SELECT DISTINCT text, size, two FROM stg_first_pairs WHERE round = $round
)

SELECT DISTINCT l.text, r.text AS like_text
FROM own AS l
INNER JOIN own AS r
    ON l.two = r.two
    AND l.text < r.text
    AND least(l.size, r.size) >= $similarity * greatest(l.size, r.size) - 1e-9
ORDER BY l.text
