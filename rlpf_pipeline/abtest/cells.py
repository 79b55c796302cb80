"""Rows of one cluster with the same covariates are one row to the likelihood: a panel repeats an advertiser's by day.

With k and n summed over such rows, the likelihood and its derivatives are the same. Errors that tell the rows apart
need one sum of each, of a weight that every row has by itself: sum x_i x_i' w_i = sum over cells of x x' (sum w_i).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rlpf_pipeline.abtest.maximum import Array, blocks

if TYPE_CHECKING:
    import pandas as pd

Numbers = npt.NDArray[np.intp]
AT_ONCE = 1 << 14
"""Rows compared at once: memory that is touched first costs more than the comparison."""


class Cells(NamedTuple):
    shown: Numbers
    """Each cell's first row, (cells,), in the rows' order."""
    cell: Numbers
    """Each row's, (rows,)."""
    clusters: Numbers
    """Each cell's, (cells,)."""


class Rows(NamedTuple):
    """Units of which a regression has the sums by cell."""

    k: Array
    n: Array
    """(rows,), above 0."""
    cell: Numbers | None = None
    """(rows,); None where each row is a cell of its own."""
    clusters: Numbers | None = None
    """Of each cell, (cells,), from 0."""

    def spread(self, values: Array) -> Array:
        """By row, of values by cell."""
        return values if self.cell is None else values[self.cell]

    def summed(self, values: Array) -> Array:
        """By cell, of values by row."""
        return values if self.cell is None else sums_by(self.cell, values)


def cells_of(columns: Iterable[pd.Series[Any]], clusters: Numbers) -> Cells:
    """clusters: each row's, (rows,), from 0 without gaps. Rows that differ from their cluster's first in one of the
    columns are cells of their own."""
    rows = np.arange(len(clusters))
    first = np.zeros(int(clusters.max()) + 1, dtype=np.intp)
    first[clusters[::-1]] = rows[::-1]  # of several values, the last one stays
    stands = first[clusters]
    alike = np.ones(len(rows), dtype=bool)
    for values in map(comparable, columns):
        for part in blocks(len(rows), AT_ONCE):
            alike[part] &= values[part] == values[stands[part]]
    stands[~alike] = rows[~alike]
    is_shown = np.zeros(len(rows), dtype=bool)
    is_shown[stands] = True
    return Cells(np.flatnonzero(is_shown), (np.cumsum(is_shown) - 1)[stands], clusters[is_shown])


def comparable(column: pd.Series[Any]) -> npt.NDArray[Any]:
    """Equal where the column is; as numbers of its values where these are not numbers or texts."""
    import pandas as pd
    from pandas.api.types import infer_dtype

    if isinstance(column.dtype, np.dtype) and (column.dtype != object or infer_dtype(column, skipna=False) == "string"):
        return column.to_numpy()
    return pd.factorize(column)[0]


def sums_by(cell: Numbers, values: Array) -> Array:
    return np.asarray(np.bincount(cell, values), dtype=np.float64)
