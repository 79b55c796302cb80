-- One row: how often word pairs stand in texts, as a list of 2^20 counts; a word pair's is at its hash modulo 2^20.
WITH counted AS (
    SELECT (shingle % 1048576)::INTEGER AS bucket, count(*) AS times
    FROM (SELECT unnest(shingles) AS shingle FROM stg_ad_texts)
    GROUP BY bucket
)

SELECT list(coalesce(times, 0)::UBIGINT ORDER BY bucket) AS of_bucket
FROM range(1048576) AS buckets(bucket)
LEFT JOIN counted USING (bucket)
