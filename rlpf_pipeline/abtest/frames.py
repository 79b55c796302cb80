"""Tables in, checked pandas frames out, for a regression on any table (an experiment's own is judged in panel.py)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.abtest.maximum import Array
from rlpf_pipeline.contracts import ARMS
from rlpf_pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_ADVERTISERS = 10
LARGEST = 1e100
"""Of a number: squares of more, summed, would overflow."""
LARGEST_COUNT = 2**53
"""Up to it a float tells whole numbers apart."""
NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")
"""What pandas calls columns of objects that are numbers."""


def as_frame(data: Any) -> pd.DataFrame:
    """A new pandas frame with a fresh index from a pandas.DataFrame or a pyarrow.Table; no column is copied."""
    import pandas as pd  # heavy, and not needed where DuckDB sums the rows

    if not isinstance(data, pd.DataFrame) and not hasattr(data, "to_pandas"):
        raise UserError(f"Expected a pandas.DataFrame or a pyarrow.Table, got {type(data).__name__}.")
    frame = data.copy(deep=False) if isinstance(data, pd.DataFrame) else pd.DataFrame(data.to_pandas())
    if frame.columns.nlevels > 1:
        raise UserError(
            "The table's columns have names of several levels, which a formula cannot tell. Make each one text first: "
            "data.columns = ['_'.join(map(str, name)) for name in data.columns]."
        )
    frame.index = pd.RangeIndex(len(frame))
    return frame


def plain(column: pd.Series[Any]) -> pd.Series[Any]:
    """In a type that formulaic knows: texts as objects, categories as pandas' without levels that no row has, numbers
    as numbers. It takes text in pandas' or Arrow's own types for numbers, and numbers held as objects (as Decimals are)
    for a level each."""
    import pandas as pd
    from pandas.api.types import infer_dtype

    if isinstance(column.dtype, pd.ArrowDtype):
        column = column.array.__arrow_array__().to_pandas()
    elif isinstance(column.dtype, pd.StringDtype):
        column = column.astype(object)
    if column.dtype == object and infer_dtype(column) in NUMBERS:
        column = column.infer_objects()
        return column.astype(float) if column.dtype == object else column
    return column.cat.remove_unused_categories() if isinstance(column.dtype, pd.CategoricalDtype) else column


def named_twice(frame: pd.DataFrame) -> list[Any]:
    return list(frame.columns[frame.columns.duplicated()])


def require_single(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise UserError when the frame has two columns of one of these names."""
    twice = sorted({*columns} & {*named_twice(frame)})
    if twice:
        raise UserError(f"More than one column is called {', '.join(twice)}. Rename or leave out all but one of them.")


def require_one_type_of_names(column: pd.Series[Any]) -> None:
    """Raise UserError when a category or cluster is named by numbers and by text, as pandas.read_csv makes of a column
    where only some of a file's chunks hold words: it would count as two, and a design has one name for both."""
    import pandas as pd
    from pandas.api.types import infer_dtype

    levels = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    if levels.dtype != object or infer_dtype(levels) == "string":
        return
    named = levels.dropna().unique()
    texts = {name for name in named if isinstance(name, str)}
    read = set(pd.to_numeric(pd.Series(list(texts), dtype=object), errors="coerce"))
    if twice := [name for name in named if not isinstance(name, str) and (str(name) in texts or name in read)]:
        raise UserError(
            f"{column.name} holds {twice[0]} also as text, which would count as two. Make the column one type: "
            f"pandas.read_csv(…, dtype={{{str(column.name)!r}: str}}) reads text alone."
        )


def require_columns(frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Raise UserError when one of `columns` is absent, or there are two of its name."""
    absent = [name for name in columns if name not in frame.columns]
    if absent:
        raise UserError(
            f"The table has no column {', '.join(absent)}. It needs: {', '.join(columns)}; it has: "
            f"{', '.join(map(str, frame.columns))}. Rename or add the columns."
        )
    require_single(frame, columns)


def require_values(frame: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Raise UserError when one of `columns` has a missing value."""
    missing = {name: int(frame[name].isna().sum()) for name in columns if frame[name].isna().any()}
    if missing:
        first = int(frame[list(missing)].isna().any(axis=1).to_numpy().argmax()) + 1
        listed = ", ".join(f"{name} ({count})" for name, count in missing.items())
        raise UserError(
            f"Missing values in {listed}; the first is in data row {first}. "
            "Fill them in or leave those rows out, the same way in both arms, then run again."
        )


def counts_in(frame: pd.DataFrame, successes: str, trials: str) -> tuple[Array, Array]:
    """Both as numbers, (rows,). Raises UserError unless 0 <= successes <= trials <= LARGEST_COUNT in every row."""
    require_values(frame, (successes, trials))
    try:
        k, n = frame[successes].to_numpy(float), frame[trials].to_numpy(float)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{successes} and {trials} are to hold numbers: {error}. Correct them at their source."
        ) from error
    for wrong, problem in (
        (~((k <= LARGEST_COUNT) & (n <= LARGEST_COUNT)), f"is not a finite number (up to {LARGEST_COUNT:g})"),
        ((k < 0) | (n < 0), "is negative"),
        (k > n, f"has more {successes} than {trials}"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"Data row {row + 1} {problem} ({successes} {k[row]:g}, {trials} {n[row]:g}); "
                f"{int(wrong.sum())} such row(s). Correct the counts at their source."
            )
    return k, n


def with_exposure(frame: pd.DataFrame) -> pd.DataFrame:
    """The advertisers with impressions: those without carry no information on CTR.

    Raises UserError as `require_exposure` does.
    """
    exposed = frame[frame["impressions"] > 0].reset_index(drop=True)
    require_exposure((exposed["arm"] == ARMS[1]).to_numpy(), exposed["clicks"].to_numpy(float))
    return exposed


def require_exposure(treated: npt.NDArray[np.bool_], clicks: Array) -> None:
    """Raise UserError when the advertisers with impressions (treated, clicks: one each) are too few, when an arm has
    fewer than two of them, or when an arm has no clicks at all."""
    sizes = int((~treated).sum()), int(treated.sum())
    if sum(sizes) < MINIMUM_ADVERTISERS or min(sizes) < 2:
        raise UserError(
            f"Only {sizes[0]} control and {sizes[1]} treatment advertisers have impressions; "
            f"the analysis needs at least {MINIMUM_ADVERTISERS} in all and 2 in each arm. Run it for longer."
        )
    for arm, chosen in zip(ARMS, (~treated, treated), strict=True):
        if clicks[chosen].sum() == 0:
            raise UserError(
                f"The {arm} arm has no clicks: a relative risk is then 0 or infinite. "
                "Check that clicks were recorded, or run the experiment for longer."
            )
