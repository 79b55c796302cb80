-- Offenders: a variant paired with itself, or a pair in the wrong order (left_id is the smaller one), so that it may occur twice.
SELECT * FROM preference_pairs
WHERE left_id >= right_id
ORDER BY ad_id, left_id, right_id
