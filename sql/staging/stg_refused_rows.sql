-- One row per refused row of the user's files, with the first reason: it could not be parsed, its own values are no good,
-- or it says again, or otherwise, what another row says. Reads source_rows and understood_rows.
WITH valid AS NOT MATERIALIZED (FROM understood_rows WHERE own_reason IS NULL),

-- Without a period, though other rows of the ad's text have one: what they count may be among its counts.
undated AS NOT MATERIALIZED (
    SELECT DISTINCT hash(ad_id, text) AS key FROM valid
    WHERE period IS NOT NULL AND (SELECT bool_or(period IS NULL) FROM valid)
),

-- Few rows need to be compared with others: those whose variant_id stands beside several texts, whose ad's text stands there
-- twice in a period, has a window of several days, or has a period in some rows only. Hashes find them: should two meet by
-- chance, a row too many is compared.
told AS (
    SELECT
        *,
        days(period) AS days,
        first_value(text) OVER by_variant_id AS text_of_id,
        first_value(place) OVER by_variant_id AS place_of_id
    FROM (
        SELECT
            *,
            period IS NULL AND hash(ad_id, text) IN (FROM undated) AS lacks_period,
            clean_text(duplicate_key) = text AS known_by_text,
            {'file': source_file, 'row': coalesce('row ' || row_number, 'an earlier row')} AS place
        FROM valid
        WHERE
            hash(ad_id, variant_id) IN (
                SELECT hash(ad_id, variant_id) AS id FROM valid GROUP BY id HAVING min(hash(text)) <> max(hash(text))
            )
            OR hash(ad_id, text, period) IN (
                SELECT hash(ad_id, text, period) AS key FROM valid GROUP BY key HAVING count(*) > 1
            )
            OR hash(ad_id, text) IN (SELECT DISTINCT hash(ad_id, text) FROM valid WHERE contains(period, '/'))
            OR lacks_period
    )
    -- The first valid row of an ad and variant_id says what the variant's text is.
    WINDOW by_variant_id AS (PARTITION BY ad_id, variant_id ORDER BY file_index, position)
),

-- Of a key and period, among rows of the variant's own text, the last file's first row says the counts: a day that is
-- exported again is complete, or corrected. In one file keys are compared as they stand there: texts that are equal only when
-- normalised are merged later. Of several files one may name variants by ids that another lacks: their texts are compared.
compared AS (
    SELECT
        *,
        first_value(place) OVER by_key AS place_of_key,
        row_number() OVER by_key > 1 AS key_is_taken,
        CASE WHEN known_by_text THEN max(file_index) OVER by_text
            ELSE max(CASE WHEN known_by_text THEN file_index END) OVER by_text END AS last_file
    FROM told
    WINDOW
        by_key AS (PARTITION BY ad_id, duplicate_key, period, text = text_of_id ORDER BY file_index DESC, position),
        by_text AS (PARTITION BY ad_id, text, period, text = text_of_id)
),

counting AS (
    SELECT
        *,
        CASE WHEN key_is_taken THEN place_of_key WHEN last_file > file_index THEN {'file': path, 'row': 'a row'} END AS same
    FROM compared
    LEFT JOIN (SELECT DISTINCT file_index AS last_file, source_file AS path FROM source_rows) USING (last_file)
),

-- Per text the longest window counts, of equal ones the latest, then the next that overlaps none that counts. Only a
-- window of several days can overlap another.
counted_windows AS (
    SELECT
        ad_id,
        text,
        list_reduce(
            list([days] ORDER BY days.last - days.first DESC, days.last DESC),
            lambda counted, next: CASE WHEN len(overlapping(counted, next[1])) = 0 THEN counted || next ELSE counted END
        ) AS counted
    FROM (SELECT DISTINCT ad_id, text, days FROM compared WHERE text = text_of_id)
    WHERE days IS NOT NULL
    GROUP BY ad_id, text
    HAVING count(*) > 1 AND max(days.last - days.first) > 0
)

SELECT
    file_index,
    position,
    CASE
        WHEN text_of_id <> text
            THEN 'variant_id used for another text of this ad: ' || place_of_id.row
                || if(place_of_id.file = source_file, '', ' of ' || place_of_id.file)
        WHEN same IS NOT NULL
            THEN 'duplicate variant: same ad'
                || if(period IS NULL AND same.file <> source_file, ' and text, and no period, as ', ', text and period as ')
                || same.row
                || if(same.file = source_file, '', ' of ' || same.file)
        WHEN lacks_period THEN 'no period, which other rows of the same ad and text have'
        WHEN overlapping(counted, days)[1] <> days
            THEN 'period overlaps one of the same ad and text that counts: '
                || overlapping(counted, days)[1].first || '/' || overlapping(counted, days)[1].last
    END AS reason
FROM counting
LEFT JOIN counted_windows USING (ad_id, text)
WHERE reason IS NOT NULL
UNION ALL
SELECT file_index, position, own_reason AS reason
FROM understood_rows
WHERE own_reason IS NOT NULL
UNION ALL
SELECT file_index, position, problem AS reason
FROM source_rows
WHERE problem IS NOT NULL
