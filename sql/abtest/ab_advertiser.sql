-- One row per advertiser of an experiment, from ab_rows (one row per advertiser, or per advertiser and day).
-- wrong: whether one of its rows is, or it has no name, or one like $rounded (rows.ROUNDED). Counts are sums. days: how many
-- distinct ones it has, by a bit for each day from $first to $last, those of the experiment (of as small a whole number as
-- is enough, which is faster); fewer than row_count where a day is repeated. flawed: cannot be analysed, for one of these
-- reasons.
-- What describes the advertiser (ab_descriptions, by row) is that of its first day, before the treatment could change it:
-- looked up there, which is faster than to carry it along from row to row, the more so as DuckDB reads no further than the
-- last first day. Without a flaw there is one row of that day.
-- Exact: an advertiser's score is the sum of its rows' scores. Spend is summed as a decimal, whose sum does not depend on
-- the order of the rows; the other sums are of whole numbers.
WITH totals AS (
    SELECT
        advertiser_id,
        bool_or(wrong)
        OR coalesce(lower(advertiser_id) IN ('', 'nan'), true)
        OR CASE
            WHEN ends_with(advertiser_id, '.0') OR contains(advertiser_id, '+') THEN regexp_matches(advertiser_id, $rounded)
            ELSE false
        END AS wrong,
        min(arm) AS arm,
        min(arm) <> max(arm) AS crossed,
        count(*) AS row_count,
        CASE
            WHEN $last - $first < 63 THEN bit_count(bit_or(1::BIGINT << (day - $first)))
            WHEN $last - $first < 127 THEN bit_count(bit_or(1::HUGEINT << (day - $first)))
            ELSE bit_count(bitstring_agg(day, $first, $last))
        END AS days,
        sum(impressions) AS impressions,
        sum(clicks) AS clicks,
        sum(ads) AS ads,
        sum(variations) AS variations,
        sum((CASE WHEN wrong IS NOT true THEN spend END)::DECIMAL(38, 9))::DOUBLE AS spend,
        min(given_day) AS first_day
    FROM ab_rows
    GROUP BY advertiser_id
),

judged AS (
    SELECT * REPLACE (arm::VARCHAR AS arm), coalesce(wrong OR crossed OR row_count > days, false) AS flawed
    FROM totals
)

SELECT judged.*, described.* EXCLUDE (advertiser_id, given_day)
FROM judged
LEFT JOIN ab_descriptions AS described
    ON NOT judged.flawed AND judged.advertiser_id = described.advertiser_id AND judged.first_day = described.given_day
