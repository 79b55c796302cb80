-- One row per text of the ads from $first_ad to $last_ad and pair of its first word pairs, by the round (of $rounds) that
-- looks for texts that share it. Two texts of Jaccard similarity $similarity (above a half, below 1) or more share one.
--
-- Put all word pairs in one order: of two sets that similar, both have two in common among their
-- size - ceil(similarity * size) + 2 first (prefix filter, Chaudhuri et al. 2006; two in common: Wang et al. 2012). Rare
-- ones come first, as far as counts in buckets tell, so that few texts share two firsts by chance and boilerplate does
-- not count. Smaller sets are left out: one word pair more or less is too much, they are this similar only when equal.
WITH firsts AS (
    SELECT
        text,
        len(shingles)::INTEGER AS size,
        list_sort(
            list_transform(shingles, lambda s: (of_bucket[(s % 1048576)::INTEGER + 1] << 32) | (s >> 32))
        )[:(len(shingles) - ceil($similarity * len(shingles) - 1e-9))::INTEGER + 2] AS firsts
    FROM stg_ad_texts, stg_shingle_counts
    WHERE ad BETWEEN $first_ad AND $last_ad AND len(shingles) >= $similarity / (1 - $similarity) - 1e-9
),

twos AS (
    SELECT DISTINCT
        text,
        size,
        unnest(
            flatten(list_transform(firsts, lambda one, place: list_transform(firsts[place + 1:], lambda next: hash(one, next))))
        ) AS two
    FROM firsts
)

SELECT (two % $rounds)::INTEGER AS round, text, size, two
FROM twos
ORDER BY round
