-- Functions that DuckDB lacks, as temporary macros of every warehouse connection.

-- psi(x) and psi'(x) for x > 0: shifted up by 6 with the recurrences psi(x) = psi(x+1) - 1/x, psi'(x) = psi'(x+1) + 1/x^2
-- (Abramowitz & Stegun 6.3.5, 6.4.6), then their asymptotic series (6.3.18, 6.4.12) in y = 1 / (x + 6). Absolute error
-- below 1e-8. Products instead of powers: they are ten times faster.
CREATE OR REPLACE TEMP MACRO digamma_shifted(x, y) AS
    ln(x + 6) - y * (1 / 2 + y * (1 / 12 - y * y * (1 / 120 - y * y / 252)))
    - (1 / x + 1 / (x + 1) + 1 / (x + 2) + 1 / (x + 3) + 1 / (x + 4) + 1 / (x + 5));

CREATE OR REPLACE TEMP MACRO trigamma_shifted(x, y) AS
    y * (1 + y * (1 / 2 + y * (1 / 6 - y * y * (1 / 30 - y * y / 42))))
    + (1 / (x * x) + 1 / ((x + 1) * (x + 1)) + 1 / ((x + 2) * (x + 2)) + 1 / ((x + 3) * (x + 3))
        + 1 / ((x + 4) * (x + 4)) + 1 / ((x + 5) * (x + 5)));

CREATE OR REPLACE TEMP MACRO digamma(x) AS digamma_shifted(x, 1 / (x + 6));

CREATE OR REPLACE TEMP MACRO trigamma(x) AS trigamma_shifted(x, 1 / (x + 6));

-- P(Z > z) of a standard normal Z for z >= 0: half the complementary error function of z / sqrt(2), as Numerical
-- Recipes' erfcc, relative error below 1.2e-7 for every z; never above one half, which erfcc passes by 1e-8 near 0.
CREATE OR REPLACE TEMP MACRO erfcc(x, t) AS
    t * exp(-x * x - 1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
    + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277)))))))));

CREATE OR REPLACE TEMP MACRO upper_tail(z) AS least(0.5 * erfcc(z / sqrt(2e0), 1 / (1 + 0.5 * z / sqrt(2e0))), 0.5e0);

-- P(Z < z): the tail above |z|, or what it leaves of 1, without a CASE, which would cost as much again. The values of z and
-- -z add up to 1 to the bit; one half at 0.
CREATE OR REPLACE TEMP MACRO lower_tail(z) AS abs((z > 0)::DOUBLE - upper_tail(abs(z)));

-- Which of two gamma variables X and Y is larger, of shapes p, q and rates r, s. P(X > Y) is P(Z < z) of shapes p + 2 and
-- q + 2, plus what two steps of the incomplete beta function's recurrence (Abramowitz & Stegun 26.5.15, 26.5.16) add,
-- exactly. x = r / (r + s), y = s / (r + s).
-- The cube root of a gamma variable of shape p and mean m^3 is nearly normal with mean m (1 - 1 / 9p) and variance m^2 / 9p
-- (Wilson & Hilferty 1931).
CREATE OR REPLACE TEMP MACRO cube_roots_z(p, m, q, n) AS
    (m * (1 - 1 / (9 * p)) - n * (1 - 1 / (9 * q))) / sqrt(m * m / (9 * p) + n * n / (9 * q));

CREATE OR REPLACE TEMP MACRO larger_gammas_z(p, r, q, s) AS
    cube_roots_z(p + 2, cbrt((p + 2) / r), q + 2, cbrt((q + 2) / s));

CREATE OR REPLACE TEMP MACRO over_larger_gammas_at(p, x, q, y) AS
    exp(lgamma(p + q + 1) - (lgamma(p + 1) + lgamma(q + 1)) + (p * ln(x) + q * ln(y)))
    * ((p * x - q * y) / (p + q) + x * y * (p + q + 1) / ((p + 1) * (q + 1)) * ((p + 1) * x - (q + 1) * y));

CREATE OR REPLACE TEMP MACRO over_larger_gammas(p, r, q, s) AS over_larger_gammas_at(p, r / (r + s), q, s / (r + s));

-- Most texts have no space around, which is seen in a tenth of the time of a trim.
CREATE OR REPLACE TEMP MACRO without_spaces_around(value) AS
    CASE WHEN starts_with(value, ' ') OR ends_with(value, ' ') THEN trim(value) ELSE value END;

-- Unicode NFC. DuckDB's takes a NUL for the end of the text: a space stands for it.
CREATE OR REPLACE TEMP MACRO normalised(value) AS nfc_normalize(replace(value, chr(0), ' '));

-- Unicode NFC, every run of white space one space, none around; null where nothing is left. White space is Unicode's, a
-- line's vertical tab as Word writes it among it, and the separators of ASCII: what Python's str.split parts by. Most texts
-- need no replacing, which takes six times as long as to see that.
CREATE OR REPLACE TEMP MACRO clean_text(value) AS
    nullif(without_spaces_around(
        CASE WHEN regexp_matches(normalised(value), '  |[^\S ]|[^\PZ ]|[\x0B\x1C-\x1F\x85]')
            THEN regexp_replace(normalised(value), '[\s\pZ\x0B\x1C-\x1F\x85]+', ' ', 'g')
            ELSE normalised(value) END), '');

-- 3052, 3052.0 and 3,052 are whole numbers; 3.7 (a bare cast would round it) and 3,7 are none, and give null. So does 3.000,
-- which is three thousand where a point divides thousands. Most are digits alone, which is seen in a fifth of the time.
CREATE OR REPLACE TEMP MACRO whole_number(value) AS
    CASE
        WHEN regexp_full_match(value, '[0-9]+') THEN try_cast(value AS BIGINT)
        WHEN regexp_full_match(trim(value), '[+-]?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.0*)?')
            AND NOT regexp_full_match(trim(value), '[+-]?[1-9][0-9]{0,2}\.000')
            THEN try_cast(replace(split_part(trim(value), '.', 1), ',', '') AS BIGINT)
    END;

-- An id by itself: 120, also where a column that lacks some is one of floats (120.0, and nan for those it lacks); null for
-- the words of R (NA), SQL and Python for none, which would be one ad, or advertiser, of all that have none. From 16 digits
-- on a float may be another number than was meant, and stays as it is. Most are none of these, which is seen first.
CREATE OR REPLACE TEMP MACRO id_without_spaces(id) AS
    CASE
        WHEN strlen(id) NOT IN (0, 2, 3, 4) AND NOT ends_with(id, '.0') THEN id
        WHEN regexp_full_match(id, '[0-9]{1,15}\.0') THEN split_part(id, '.', 1)
        WHEN lower(id) NOT IN ('', 'nan', 'na', 'n/a', 'null', 'none') THEN id
    END;

CREATE OR REPLACE TEMP MACRO plain_id(id) AS id_without_spaces(without_spaces_around(id));

-- A period with a day named in one way only: 2024-03-01, not its midnight (2024-03-01 00:00:00) or its window
-- (2024-03-01/2024-03-01).
CREATE OR REPLACE TEMP MACRO one_day(period) AS
    CASE WHEN period = left(period, 10) || '/' || left(period, 10) THEN left(period, 10) ELSE period END;

CREATE OR REPLACE TEMP MACRO plain_period(period) AS
    CASE WHEN length(period) > 10
        THEN one_day(regexp_replace(period, '(\d{4}-\d\d-\d\d)[ T]00:00(:00(\.0+)?)?( ?(Z|UTC|GMT)|\+00(:?00)?)?(/|$)', '\1\7', 'g'))
        ELSE period END;

-- A week or month that is named by its first day is the window of its days; any other stays as it is.
CREATE OR REPLACE TEMP MACRO window_from(first_day, length) AS
    coalesce(first_day || '/' || strftime(try_cast(first_day AS DATE) + length - INTERVAL 1 DAY, '%Y-%m-%d'), first_day);

-- First and last day of a period that is a day or a window of days (2024-03-01/2024-03-20); null for any other, as for one
-- that ends before it begins.
CREATE OR REPLACE TEMP MACRO days(period) AS
    CASE WHEN regexp_full_match(period, '\d{4}-\d\d-\d\d(/\d{4}-\d\d-\d\d)?')
            AND try_cast(left(period, 10) AS DATE) <= try_cast(right(period, 10) AS DATE)
        THEN {'first': try_cast(left(period, 10) AS DATE), 'last': try_cast(right(period, 10) AS DATE)} END;

-- Those of a list of windows that share a day with another.
CREATE OR REPLACE TEMP MACRO overlapping(windows, other) AS
    list_filter(windows, lambda listed: listed.first <= other.last AND other.first <= listed.last);
