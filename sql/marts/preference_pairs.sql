-- A view: one row per unordered pair of variants of one ad, names and counts of both sides beside the labels of `pairs`.
SELECT
    ads.ad_id,
    l.variant_id AS left_id,
    r.variant_id AS right_id,
    l.impressions AS left_impressions,
    l.clicks AS left_clicks,
    r.impressions AS right_impressions,
    r.clicks AS right_clicks,
    pairs.effect,
    pairs.z,
    pairs.p_left_better,
    pairs.p_value,
    pairs.weight,
    pairs.split
FROM pairs
INNER JOIN variants AS l ON pairs.left_variant = l.variant
INNER JOIN variants AS r ON pairs.right_variant = r.variant
INNER JOIN ads ON l.ad = ads.ad
