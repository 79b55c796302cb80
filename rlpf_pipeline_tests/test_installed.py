"""The package as a wheel lays it out: without the project around it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from rlpf_pipeline.package import PACKAGE, SQL

REPOSITORY = PACKAGE.parent
SAYS = """
from rlpf_pipeline.digests import source_digest
from rlpf_pipeline.defs.run import DAGSTER_SETTINGS
from rlpf_pipeline.profiles import home_from_environment
from rlpf_pipeline.warehouse import read_sql
source_digest("sql/abtest")
print(home_from_environment(), read_sql("macros"), DAGSTER_SETTINGS.read_text(), sep="\\0", end="")
"""


def test_queries_and_settings_are_found_and_the_home_is_in_the_working_folder(tmp_path: Path) -> None:
    """Files stand where pyproject.toml puts them, and links are what they lead to."""
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in wheel["only-include"]:
        place = tmp_path / "site" / wheel["sources"].get(name, name)
        shutil.copytree(REPOSITORY / name, place, ignore=shutil.ignore_patterns("__pycache__"))
    variables = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", SAYS], env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    home, macros, dagster = done.stdout.split("\0")
    assert home == str(tmp_path / ".rlpf")
    assert macros == (SQL / "macros.sql").read_text()
    assert dagster == (REPOSITORY / "dagster.yaml").read_text()
