-- A view: one row per ad and distinct text, its names and counts side by side (from `ads` and `variants`).
SELECT
    ads.source,
    ads.ad_id,
    ads.advertiser_id,
    ads.context,
    variants.variant_id,
    variants.text,
    variants.impressions,
    variants.clicks,
    variants.clicks / variants.impressions AS ctr,
    variants.split
FROM variants
INNER JOIN ads ON variants.ad = ads.ad
