"""The rows of an experiment's table, judged by DuckDB: typed, under our names, and what is wrong with each (panel.py).

Everything here is SQL text: names are quoted, words of the user's spec are literals.
"""

from __future__ import annotations

from typing import NamedTuple

from rlpf_pipeline.abtest.frames import LARGEST, LARGEST_COUNT
from rlpf_pipeline.abtest.spec import OUTCOMES, Covariate, ExperimentSpec, Form
from rlpf_pipeline.contracts import ARMS
from rlpf_pipeline.warehouse import literal, quoted

NUMBER_FORMS = ("rate", "count", "number")
FLOATS = ("DOUBLE", "FLOAT")
NO_TEXT = ("", "nan")
NO_NUMBER = (*NO_TEXT, "na", "n/a", "null", "none")
"""Words for a value that is missing, as R (NA), SQL and Python write it; among texts these may be names."""
WHOLE = ("impressions", "clicks", "ads", "variations")
ROUNDED = "^([0-9]([.,][0-9]+)?[eE][+][0-9]{2}|[0-9]{16,}[.]0)$"
"""An id that was too long for a spreadsheet (1.2021E+17) or a column of floats."""
DIGITS = "YYYYMMDD"
"""In place of the type of a date's whole numbers, where 20240131 is the last of January (panel.are_written_dates)."""


class RowQueries(NamedTuple):
    """SELECTs from the user's table, which is called `source`."""

    typed: str
    """Every row under our names, and whether it is `wrong`, that is cannot be right."""
    descriptions: str
    """Every row's advertiser_id, given_day and covariates, as they were given (`value_of`): those of first days are
    looked at."""
    problems: str
    """Every row's advertiser_id, `problem` and `given`: what is wrong in words, which costs more than whether, and what
    the row holds there."""


class RowTest(NamedTuple):
    """What a row must not be, and how to say it."""

    wrong: str
    """SQL"""
    said: str
    given: str = "NULL"
    """SQL, of what the row holds instead."""


def row_queries(
    kinds: dict[str, str], spec: ExperimentSpec, covariates: tuple[Covariate, ...], outcomes: tuple[str, ...]
) -> RowQueries:
    fields = {"advertiser_id": f"trim({quoted(spec.source_of('advertiser_id'))}::VARCHAR)", "arm": arm_of(spec, kinds)}
    fields |= {name: number(*column_of(name, spec, kinds)) for name in ("impressions", "clicks", *outcomes)}
    fields |= {name: "NULL::DOUBLE" for name in OUTCOMES if name not in outcomes}
    fields |= {"day": day_of(spec.date, kinds), "given_day": given_day(spec.date, kinds)}
    tests = row_tests(spec, covariates, outcomes, fields, kinds)
    # An arm that is missing is none of the two; whether advertisers have names is asked once for each (ab_advertiser).
    fields["wrong"] = " OR ".join(test.wrong for test in tests)
    unnamed = RowTest(
        f"NOT {is_given(fields['advertiser_id'], 'VARCHAR')}",
        f"missing value in {spec.source_of('advertiser_id')}",
    )
    rounded = RowTest(
        f"regexp_matches({fields['advertiser_id']}, {literal(ROUNDED)})",
        f"{spec.source_of('advertiser_id')} is a rounded number, that of several: hold it as a whole number or as text",
    )
    tests = [unnamed, rounded, is_missing("arm", spec, kinds), *tests]
    described = {name: fields[name] for name in ("advertiser_id", "given_day")}
    described |= {c.name: quoted(spec.source_of(c.name)) for c in covariates}
    problem = f"CASE {' '.join(f'WHEN {test.wrong} THEN {literal(test.said)}' for test in tests)} END"
    given = f"CASE {' '.join(f'WHEN {test.wrong} THEN ({test.given})::VARCHAR' for test in tests)} END"
    problems = {"advertiser_id": fields["advertiser_id"], "problem": problem, "given": given}
    # Names are quoted, and words are literals.
    return RowQueries(
        typed=f"SELECT {selected(fields)} FROM source",  # noqa: S608
        descriptions=f"SELECT {selected(described)} FROM source",  # noqa: S608
        problems=f"SELECT {selected(problems)} FROM source",  # noqa: S608
    )


def selected(fields: dict[str, str]) -> str:
    """Values by name, as a SELECT lists them."""
    return ", ".join(f"{value} AS {quoted(name)}" for name, value in fields.items())


def column_of(name: str, spec: ExperimentSpec, kinds: dict[str, str]) -> tuple[str, str]:
    """The user's column, quoted, and its type."""
    column = spec.source_of(name)
    return quoted(column), kinds[column]


def value_of(form: Form, given: str, kind: str) -> str:
    """A covariate as it was given (a column of that type) to its value: text, true or false, or a DOUBLE."""
    if form == "category":
        return f"CASE WHEN {is_given(given, kind)} THEN trim({given}::VARCHAR) END"
    return flag(given, kind) if form == "flag" else number(given, kind)


def row_tests(
    spec: ExperimentSpec,
    covariates: tuple[Covariate, ...],
    outcomes: tuple[str, ...],
    fields: dict[str, str],
    kinds: dict[str, str],
) -> list[RowTest]:
    """In the order in which problems are told."""
    counted = ("impressions", "clicks", *outcomes)
    tests = [is_missing(name, spec, kinds, NO_NUMBER) for name in counted]
    known = f"{spec.arms.control} and {spec.arms.treatment}"
    tests.append(
        RowTest(
            f"{fields['arm']} IS NULL",
            f"{spec.source_of('arm')} is not one of {known} (a spec names the arms, if they are called otherwise)",
            quoted(spec.source_of("arm")),
        )
    )
    numbers = [*counted, *(c.name for c in covariates if c.form in NUMBER_FORMS)]
    given = {name: quoted(spec.source_of(name)) for name in numbers}
    plain = {name: comparable(*column_of(name, spec, kinds)) for name in numbers}
    for name, value in plain.items():
        kind, largest = kinds[spec.source_of(name)], LARGEST_COUNT if name in WHOLE else LARGEST
        said = f"{spec.source_of(name)} is not a finite number (up to {largest:g})"
        if not is_whole(kind):
            beyond = f"abs({value}) > {largest} AND NOT {is_nan(value)}"  # NaN is a missing value
            tests.append(RowTest(beyond, said, given[name]))
            if kind not in FLOATS:
                no_number = f"{is_given(given[name], kind, NO_NUMBER)} AND {value} IS NULL"
                tests.append(RowTest(no_number, said, given[name]))
        elif name in WHOLE:
            tests.append(RowTest(f"{value} > {largest}", said, given[name]))
    never_negative = [*counted, *(c.name for c in covariates if c.form in ("rate", "count"))]
    tests += [RowTest(f"{plain[n]} < 0", f"{spec.source_of(n)} is negative", given[n]) for n in never_negative]
    whole = [n for n in WHOLE if n in counted and not is_whole(kinds[spec.source_of(n)])]
    tests += [
        RowTest(f"{plain[n]} <> floor({plain[n]})", f"{spec.source_of(n)} counts whole things", given[n]) for n in whole
    ]
    more = f"{plain['clicks']} > {plain['impressions']}"
    both = f"{given['clicks']} || ' of ' || {given['impressions']}"
    tests.append(RowTest(more, f"more {spec.source_of('clicks')} than {spec.source_of('impressions')}", both))
    for name in (c.name for c in covariates if c.form == "flag" and kinds[spec.source_of(c.name)] != "BOOLEAN"):
        column = column_of(name, spec, kinds)
        neither = f"{is_given(*column, NO_NUMBER)} AND {flag(*column)} IS NULL"
        tests.append(RowTest(neither, f"{spec.source_of(name)} is not true or false", column[0]))
    if spec.date is not None:
        kind = kinds[spec.date]
        else_whole = "" if kind == DIGITS else f" such as 2024-05-31, nor of a type of whole numbers (it is {kind})"
        tests.append(RowTest(f"({fields['day']}) IS NULL", f"{spec.date} is not a date{else_whole}", quoted(spec.date)))
    return tests


def is_missing(name: str, spec: ExperimentSpec, kinds: dict[str, str], nothing: tuple[str, ...] = NO_TEXT) -> RowTest:
    given = is_given(*column_of(name, spec, kinds), nothing)
    return RowTest(f"NOT {given}", f"missing value in {spec.source_of(name)}")


def is_given(column: str, kind: str, nothing: tuple[str, ...] = NO_TEXT) -> str:
    """nothing: words that are no value."""
    words = ", ".join(map(literal, nothing))
    missing = {"VARCHAR": f"lower(trim({column})) IN ({words})"} | dict.fromkeys(FLOATS, is_nan(column))
    return f"({column} IS NOT NULL{f' AND NOT {missing[kind]}' if kind in missing else ''})"


def is_nan(value: str) -> str:
    """Not `isnan`, which DuckDB takes for false where a Parquet file's statistics, which know no NaN, have an end."""
    return f"(NOT isfinite({value}) AND NOT isinf({value}))"


def is_whole(kind: str) -> bool:
    return kind.endswith(("INT", "INTEGER"))


def arm_of(spec: ExperimentSpec, kinds: dict[str, str]) -> str:
    """An ENUM from the start: numbers are compared twice as fast as words, and a cast of every row costs even more."""
    column, kind = column_of("arm", spec, kinds)
    word, known = f"{column}::VARCHAR", f"ENUM({', '.join(map(literal, ARMS))})"
    bare = f"regexp_replace({word}, '[.]0$', '')" if kind in FLOATS else f"trim({word})"
    cases = " ".join(
        f"WHEN {literal(name)} THEN {literal(arm)}::{known}"
        for arm, name in zip(ARMS, (spec.arms.control, spec.arms.treatment), strict=True)
    )
    return f"(CASE {word} {cases} ELSE CASE {bare} {cases} END END)"


def number(column: str, kind: str) -> str:
    """A DOUBLE; null where it is missing, NaN or no number."""
    if is_whole(kind):
        return f"{column}::DOUBLE"
    value = f"TRY_CAST({column} AS DOUBLE)"
    return f"CASE WHEN NOT {is_nan(value)} THEN {value} END"


def comparable(column: str, kind: str) -> str:
    """What limits are tested on: the column as it stands where it holds numbers, so that no row has to be cast."""
    return column if is_whole(kind) or kind in FLOATS else number(column, kind)


def flag(column: str, kind: str) -> str:
    """True, false, or null where it is neither: of numbers only 1 and 0 are."""
    if kind == "BOOLEAN":
        return column
    number = f"CASE TRY_CAST({column} AS DOUBLE) WHEN 1 THEN true WHEN 0 THEN false END"
    return f"coalesce(TRY_CAST({column} AS BOOLEAN), {number})" if kind == "VARCHAR" else f"({number})"


def day_of(date: str | None, kinds: dict[str, str], summary: str = "") -> str:
    """The day of a row as a whole number: days since 1970, or the number that the table gives. summary: min or max, for
    that of all rows; it is taken of what the table gives, which a Parquet file knows without being read."""
    day = f"{summary}({given_day(date, kinds)})"
    if date is not None and not is_whole(kinds[date]):
        day = f"date_diff('day', DATE '1970-01-01', {day})"
    return f"{day}::BIGINT"


def given_day(date: str | None, kinds: dict[str, str]) -> str:
    """The day of a row as a DATE, or the number that the table gives: no more than the column itself, where it is one,
    so that a Parquet file is read only where it holds the days that are looked for."""
    if date is None:
        return "0"
    given = quoted(date)
    if is_whole(kinds[date]):
        return given
    if kinds[date] == DIGITS:
        given = f"try_strptime({given}::VARCHAR, '%Y%m%d')"
    return f"TRY_CAST({given} AS DATE)"
