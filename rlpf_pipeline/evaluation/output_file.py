"""The Parquet file that a command is to write, looked at before the work and not behind it."""

from __future__ import annotations

from pathlib import Path

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.whole_files import is_same, require_writable


def require_table(output: Path, source: Path) -> None:
    """Raises UserError where `output` cannot become a Parquet file beside the input. Makes the folder that it is in."""
    if output.suffix != ".parquet":
        raise UserError(f"The output {output} is written as Parquet: give it a name that ends in .parquet.")
    if is_same(output, source):
        raise UserError(f"The output {output} is the input. Choose another name.")
    require_writable(output)
