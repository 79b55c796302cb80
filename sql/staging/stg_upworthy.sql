-- One row per parsed row (arm) of the archive, values as text. An ad is a test's image, lede and excerpt: what the arms
-- share beside the headline. Arms of one ad may show the same headline; they are repetitions, and merged later; only a
-- row that equals an earlier one in everything but its running number is a duplicate.
--
-- exclusion: from 2013-06-25 to 2014-01-10 viewers were not assigned at random. The archive tells time by test_week alone:
-- year and week as strftime's %Y%W counts it (week 00 holds the days before the first Monday), so the first and
-- the last of these days lie in 201325 and 201401.
WITH looked_up AS (
    -- All at once: a row's JSON is parsed once, not once a field.
    SELECT
        *,
        json_extract_string(raw_row, [
            'clickability_test_id', 'test_week', 'impressions', 'clicks', 'eyecatcher_id', 'headline', 'lede', 'excerpt'
        ]) AS found
    FROM source_rows
    WHERE problem IS NULL
),

arms AS (
    SELECT
        *,
        found[1] AS test_id,
        found[2] AS test_week,
        found[3] AS impressions,
        found[4] AS clicks,
        concat_ws(chr(31), found[5], found[7], found[8]) AS shared,
        -- Marks within a line vanish, others part words. '<3' is no tag.
        list_transform(
            found[6:8],
            lambda value: regexp_replace(
                regexp_replace(value, '</?(a|b|em|font|i|span|strong|u)(\s[^>]*)?>', '', 'gi'), '</?[a-zA-Z!][^>]*>', ' ', 'g'
            )
        ) AS untagged
    FROM looked_up
),

cleaned AS (
    SELECT
        *,
        list_transform(
            untagged,
            lambda value: replace(replace(replace(replace(replace(replace(
                list_reduce(
                    list_distinct(regexp_extract_all(value, '&#[0-9]{2,6};')),
                    lambda decoded, entity: replace(
                        decoded, entity, coalesce(try(chr(try_cast(entity[3:-2] AS INTEGER))), ' ')
                    ),
                    value
                ),
                '&nbsp;', ' '), '&quot;', '"'), '&apos;', ''''), '&lt;', '<'), '&gt;', '>'), '&amp;', '&')
        ) AS plain
    FROM arms
)

SELECT
    file_index,
    source_file,
    position,
    row_number,
    $source::VARCHAR AS source,
    test_id || '-' || left(md5(shared), 8) AS ad_id,
    NULL::VARCHAR AS advertiser_id,
    CASE WHEN regexp_matches(plain[2], '[\pL\pN]') THEN plain[2] ELSE plain[3] END AS context,
    NULL::VARCHAR AS variant_id,
    plain[1] AS text,
    impressions,
    clicks,
    test_week AS period,
    json_merge_patch(raw_row, '{"index": null, "column_1": null}')::VARCHAR AS duplicate_key,
    CASE
        WHEN NOT $keep_broken_randomisation AND try_cast(test_week AS INTEGER) BETWEEN 201325 AND 201401
            THEN 'test in a week of broken randomisation (2013-06-25 to 2014-01-10)'
    END AS exclusion
FROM cleaned
