-- Offenders: variants that lie in another split than their ad. A model would be tested on an ad that it learned from.
SELECT variants.*, ads.split AS split_of_the_ad
FROM variants
LEFT JOIN ads ON variants.ad = ads.ad
WHERE variants.split IS DISTINCT FROM ads.split
ORDER BY variants.ad, variants.variant_id
