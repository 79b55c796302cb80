"""Where the package's own files are."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
IS_INSTALLED = (PACKAGE / "sql").is_dir()
"""From a wheel, which carries `sql/` within the package; in the project it is beside it."""
SQL = PACKAGE / "sql" if IS_INSTALLED else PACKAGE.parent / "sql"
