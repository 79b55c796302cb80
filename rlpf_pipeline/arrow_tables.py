"""Tables of `contracts` as Arrow has them: columns, order, types and nullability."""

from __future__ import annotations

import pyarrow as pa

from rlpf_pipeline.contracts import Table

ARROW_TYPES = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_()}


def arrow_schema(table: Table) -> pa.Schema:
    return pa.schema([pa.field(c.name, ARROW_TYPES[c.type], nullable=c.nullable) for c in table.columns])


def arrow_table(table: Table, columns: dict[str, object]) -> pa.Table:
    """A table of these columns, whatever their order."""
    return pa.table({c.name: columns[c.name] for c in table.columns}, schema=arrow_schema(table))
