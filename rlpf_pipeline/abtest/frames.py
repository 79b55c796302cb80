"""Tables in, checked pandas frames out: every mistake in a user's experiment table is found here, before any fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rlpf_pipeline.contracts import EXPERIMENT_ADVERTISERS
from rlpf_pipeline.errors import UserError

ARMS = ("control", "treatment")
MINIMUM_ADVERTISERS = 10
COUNTS = ("impressions", "clicks", "ads", "variations", "ads_before")
NEVER_NEGATIVE = (*COUNTS, "lifetime_ctr", "account_age_years")


def as_frame(data: Any) -> pd.DataFrame:
    """A new pandas frame with a fresh index from a pandas.DataFrame or a pyarrow.Table."""
    if isinstance(data, pd.DataFrame):
        return data.reset_index(drop=True)
    if hasattr(data, "to_pandas"):
        return pd.DataFrame(data.to_pandas()).reset_index(drop=True)
    raise UserError(f"Expected a pandas.DataFrame or a pyarrow.Table, got {type(data).__name__}.")


def require_columns(frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Raise UserError when one of `columns` is absent or has a missing value."""
    absent = [name for name in columns if name not in frame.columns]
    if absent:
        raise UserError(
            f"The table has no column {', '.join(absent)}. It needs: {', '.join(columns)}; it has: "
            f"{', '.join(map(str, frame.columns))}. Rename or add the columns."
        )
    missing = {name: int(frame[name].isna().sum()) for name in columns if frame[name].isna().any()}
    if missing:
        first = int(frame[list(missing)].isna().any(axis=1).to_numpy().argmax()) + 1
        listed = ", ".join(f"{name} ({count})" for name, count in missing.items())
        raise UserError(
            f"Missing values in {listed}; the first is in data row {first}. "
            "Fill them in or leave those rows out, the same way in both arms, then run again."
        )


def require_counts(frame: pd.DataFrame, successes: str, trials: str) -> None:
    """Raise UserError unless 0 <= successes <= trials, finite, in every row."""
    k, n = frame[successes].to_numpy(float), frame[trials].to_numpy(float)
    for wrong, problem in (
        (~(np.isfinite(k) & np.isfinite(n)), "is not a finite number"),
        ((k < 0) | (n < 0), "is negative"),
        (k > n, f"has more {successes} than {trials}"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"Data row {row + 1} {problem} ({successes} {k[row]:g}, {trials} {n[row]:g}); "
                f"{int(wrong.sum())} such row(s). Correct the counts at their source."
            )


def checked_advertisers(data: Any) -> pd.DataFrame:
    """The experiment's rows with the contract's columns and types, sorted by advertiser_id.

    Raises UserError for missing columns or values, wrong types, clicks > impressions, an advertiser twice, an unknown
    or absent arm.
    """
    frame = as_frame(data)
    require_columns(frame, EXPERIMENT_ADVERTISERS.column_names)
    frame = typed(frame[list(EXPERIMENT_ADVERTISERS.column_names)])
    require_counts(frame, "clicks", "impressions")
    require_one_row_per_advertiser(frame)
    require_both_arms(frame)
    return frame.sort_values("advertiser_id", ignore_index=True)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    convert = {"VARCHAR": text, "BOOLEAN": boolean}
    columns = EXPERIMENT_ADVERTISERS.columns
    return pd.DataFrame({column.name: convert.get(column.type, number)(frame[column.name]) for column in columns})


def text(values: pd.Series[Any]) -> pd.Series[Any]:
    return values.astype(str).astype(object)


def boolean(values: pd.Series[Any]) -> pd.Series[Any]:
    words = values.astype(str).str.lower()
    known = words.map({"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False})
    if known.isna().any():
        wrong = values[known.isna()].iloc[0]
        raise UserError(
            f"Column {values.name} must be true or false; data row {first_row(known.isna())} has '{wrong}'."
        )
    return known.astype(bool)


def number(values: pd.Series[Any]) -> pd.Series[Any]:
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    wrong = ~numbers.between(-np.inf, np.inf, inclusive="neither")
    if wrong.any():
        found = values[wrong].iloc[0]
        raise UserError(f"Column {values.name} must be a finite number; data row {first_row(wrong)} has '{found}'.")
    if values.name in NEVER_NEGATIVE and (numbers < 0).any():
        raise UserError(f"Column {values.name} is never negative; data row {first_row(numbers < 0)} is.")
    if values.name in COUNTS and (numbers % 1 != 0).any():
        raise UserError(
            f"Column {values.name} counts whole things; data row {first_row(numbers % 1 != 0)} has a fraction."
        )
    return numbers


def first_row(wrong: pd.Series[Any]) -> int:
    return int(wrong.to_numpy().argmax()) + 1


def require_one_row_per_advertiser(frame: pd.DataFrame) -> None:
    twice = frame[frame.duplicated("advertiser_id", keep=False)]
    if twice.empty:
        return
    arms = twice.groupby("advertiser_id")["arm"].nunique()
    crossed = arms[arms > 1]
    example = crossed.index[0] if len(crossed) else arms.index[0]
    if len(crossed):
        raise UserError(
            f"{len(crossed)} advertiser(s) are in more than one arm, for example {example}. The advertiser is the unit "
            "of randomisation: find out which arm each was assigned to, or leave them out of both."
        )
    raise UserError(
        f"{len(arms)} advertiser(s) have more than one row, for example {example}. "
        "Sum impressions, clicks, ads and variations to one row per advertiser."
    )


def require_both_arms(frame: pd.DataFrame) -> None:
    found = set(frame["arm"])
    if found != set(ARMS):
        raise UserError(
            f"The column arm must hold both control and treatment and nothing else; it holds: "
            f"{', '.join(sorted(found)) or 'no rows'}."
        )


def with_exposure(frame: pd.DataFrame) -> pd.DataFrame:
    """The advertisers with impressions: those without carry no information on CTR.

    Raises UserError when they are too few, when an arm has fewer than two, or when an arm has no clicks at all.
    """
    exposed = frame[frame["impressions"] > 0].reset_index(drop=True)
    size = exposed["arm"].value_counts().reindex(ARMS, fill_value=0)
    if len(exposed) < MINIMUM_ADVERTISERS or (size < 2).any():
        raise UserError(
            f"Only {size['control']} control and {size['treatment']} treatment advertisers have impressions; "
            f"the analysis needs at least {MINIMUM_ADVERTISERS} in all and 2 in each arm. Run it for longer."
        )
    clicks = exposed.groupby("arm")["clicks"].sum()
    for arm in ARMS:
        if clicks[arm] == 0:
            raise UserError(
                f"The {arm} arm has no clicks: a relative risk is then 0 or infinite. "
                "Check that clicks were recorded, or run the experiment for longer."
            )
    return exposed
