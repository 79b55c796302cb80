"""The file that a command is to write, looked at before the work and not behind it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from rlpf_pipeline.artifacts import require_replaceable
from rlpf_pipeline.errors import UserError


def require_table(output: Path, source: Path) -> None:
    """Raises UserError where `output` cannot become a Parquet file beside the input. Makes the folder that it is in."""
    if output.suffix != ".parquet":
        raise UserError(f"The output {output} is written as Parquet: give it a name that ends in .parquet.")
    if output.resolve() == source.resolve():
        raise UserError(f"The output {output} is the input. Choose another name.")
    require_writable(output)


def require_writable(output: Path) -> None:
    """Raises UserError where no file can be written there. Makes the folder that it is in."""
    try:
        require_replaceable(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise UserError(f"The output {output} cannot be written: {error.strerror}. Choose another folder.") from error
