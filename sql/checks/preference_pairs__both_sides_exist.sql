-- Offenders: pairs with a side that is no variant of the ad. Their texts cannot be looked up in the snapshot.
SELECT pairs.* FROM preference_pairs AS pairs
LEFT JOIN variant_performance AS l ON pairs.ad_id = l.ad_id AND pairs.left_id = l.variant_id
LEFT JOIN variant_performance AS r ON pairs.ad_id = r.ad_id AND pairs.right_id = r.variant_id
WHERE l.variant_id IS NULL OR r.variant_id IS NULL
ORDER BY pairs.ad_id, pairs.left_id, pairs.right_id
