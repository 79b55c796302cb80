"""The rows of an experiment's table, judged by DuckDB: typed, under our names, and what is wrong with each (panel.py).

Everything here is SQL text: names are quoted, words of the user's spec are literals.
"""

from __future__ import annotations

import duckdb

from rlpf_pipeline.abtest.frames import ARMS
from rlpf_pipeline.abtest.spec import OUTCOMES, REQUIRED, Covariate, ExperimentSpec

NUMBER_FORMS = ("rate", "count", "number")
FLOATS = ("DOUBLE", "FLOAT")
WHOLE = ("impressions", "clicks", "ads", "variations")


def view_rows(
    connection: duckdb.DuckDBPyConnection,
    kinds: dict[str, str],
    spec: ExperimentSpec,
    covariates: tuple[Covariate, ...],
    outcomes: tuple[str, ...],
) -> str:
    """Make the view `ab_rows`: typed, under our names, and whether a row is `wrong`, that is cannot be right.

    Returns the SELECT of every row's advertiser_id and `problem`: what is wrong in words costs more than whether.
    """
    fields = {"advertiser_id": f"trim({quoted(spec.source_of('advertiser_id'))}::VARCHAR)", "arm": arm_of(spec)}
    fields |= {name: number(spec.source_of(name), kinds) for name in ("impressions", "clicks", *outcomes)}
    fields |= {name: "NULL::DOUBLE" for name in OUTCOMES if name not in outcomes}
    fields["day"] = day_of(spec.date, kinds)
    described = {covariate.name: value_of(covariate, spec, kinds) for covariate in covariates}
    tests = row_tests(spec, covariates, outcomes, fields | described, kinds)
    fields["wrong"] = " OR ".join(wrong for wrong, _ in tests)
    parts = {"first_day": fields["day"]} | described
    fields["description"] = "{" + ", ".join(f"{literal(name)}: {value}" for name, value in parts.items()) + "}"
    select = ", ".join(f"{expression} AS {name}" for name, expression in fields.items())
    connection.execute(f"CREATE TEMP VIEW ab_rows AS SELECT {select} FROM source")  # noqa: S608 (names are quoted)
    problem = f"CASE {' '.join(f'WHEN {wrong} THEN {literal(said)}' for wrong, said in tests)} END"
    return f"SELECT {fields['advertiser_id']} AS advertiser_id, {problem} AS problem FROM source"  # noqa: S608


def value_of(covariate: Covariate, spec: ExperimentSpec, kinds: dict[str, str]) -> str:
    column = spec.source_of(covariate.name)
    if covariate.form == "category":
        return f"nullif(trim({quoted(column)}::VARCHAR), '')"
    return flag(column, kinds) if covariate.form == "flag" else number(column, kinds)


def row_tests(
    spec: ExperimentSpec,
    covariates: tuple[Covariate, ...],
    outcomes: tuple[str, ...],
    fields: dict[str, str],
    kinds: dict[str, str],
) -> list[tuple[str, str]]:
    """What a row must not be, and how to say it; in the order in which problems are told."""

    def given(name: str) -> str:
        column = spec.source_of(name)
        blank = f" AND lower(trim({quoted(column)})) NOT IN ('', 'nan')" if kinds[column] == "VARCHAR" else ""
        return f"({quoted(column)} IS NOT NULL{blank})"

    required = (*REQUIRED, *outcomes)
    tests = [(f"NOT {given(name)}", f"missing value in {spec.source_of(name)}") for name in required]
    known = " and ".join((spec.arms.control, spec.arms.treatment))
    tests.append(
        (
            f"{fields['arm']} IS NULL",
            f"{spec.source_of('arm')} is not one of {known} (a spec names the arms, if they are called otherwise)",
        )
    )
    numbers = ["impressions", "clicks", *outcomes, *(c.name for c in covariates if c.form in NUMBER_FORMS)]
    plain = {name: comparable(spec.source_of(name), kinds) for name in numbers}
    for name, value in plain.items():
        kind, said = kinds[spec.source_of(name)], f"{spec.source_of(name)} is not a finite number"
        if not is_whole(kind):
            tests.append((f"NOT isfinite({value})" if name in required else f"isinf({value})", said))
            if kind not in FLOATS:
                tests.append((f"{given(name)} AND {value} IS NULL", said))
    never_negative = ["impressions", "clicks", *outcomes, *(c.name for c in covariates if c.form in ("rate", "count"))]
    tests += [(f"{plain[name]} < 0", f"{spec.source_of(name)} is negative") for name in never_negative]
    whole = [n for n in WHOLE if n in ("impressions", "clicks", *outcomes) and not is_whole(kinds[spec.source_of(n)])]
    tests += [(f"{plain[n]} <> floor({plain[n]})", f"{spec.source_of(n)} counts whole things") for n in whole]
    more = f"{plain['clicks']} > {plain['impressions']}"
    tests.append((more, f"more {spec.source_of('clicks')} than {spec.source_of('impressions')}"))
    for name in (c.name for c in covariates if c.form == "flag" and kinds[spec.source_of(c.name)] != "BOOLEAN"):
        tests.append((f"{given(name)} AND {fields[name]} IS NULL", f"{spec.source_of(name)} is not true or false"))
    if spec.date is not None:
        tests.append((f"({fields['day']}) IS NULL", f"{spec.date} is not a date, nor a whole number"))
    return tests


def is_whole(kind: str) -> bool:
    return kind.endswith("INT") or kind.endswith("INTEGER")


def arm_of(spec: ExperimentSpec) -> str:
    """An ENUM from the start: numbers are compared twice as fast as words, and a cast of every row costs even more."""
    given, known = f"trim({quoted(spec.source_of('arm'))}::VARCHAR)", f"ENUM({', '.join(map(literal, ARMS))})"
    cases = " ".join(
        f"WHEN {literal(name)} THEN {literal(arm)}::{known}"
        for arm, name in zip(ARMS, (spec.arms.control, spec.arms.treatment), strict=True)
    )
    return f"(CASE {given} {cases} END)"


def number(column: str, kinds: dict[str, str]) -> str:
    """A DOUBLE; null where it is missing, NaN or no number."""
    if is_whole(kinds[column]):
        return f"{quoted(column)}::DOUBLE"
    value = f"TRY_CAST({quoted(column)} AS DOUBLE)"
    return f"CASE WHEN NOT isnan({value}) THEN {value} END"


def comparable(column: str, kinds: dict[str, str]) -> str:
    """What limits are tested on: the column as it stands where it holds numbers, so that no row has to be cast."""
    return quoted(column) if is_whole(kinds[column]) or kinds[column] in FLOATS else number(column, kinds)


def flag(column: str, kinds: dict[str, str]) -> str:
    if kinds[column] == "BOOLEAN":
        return quoted(column)
    return (
        f"coalesce(TRY_CAST({quoted(column)} AS BOOLEAN), TRY_CAST(TRY_CAST({quoted(column)} AS INTEGER) AS BOOLEAN))"
    )


def day_of(date: str | None, kinds: dict[str, str], summary: str = "") -> str:
    """The day of a row as a whole number: days since 1970, or the number that the table gives. summary: min or max, for
    that of all rows; it is taken of the dates, which a Parquet file knows without being read."""
    if date is None or is_whole(kinds[date]):
        return f"{summary}({quoted(date) if date else 0})::BIGINT"
    return f"date_diff('day', DATE '1970-01-01', {summary}(TRY_CAST({quoted(date)} AS DATE)))::BIGINT"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
