"""Digests: of values, of files, of base models, and of the project's own source.

What an artifact was made from is told apart by them (artifacts.py).
"""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from rlpf_pipeline.package import PACKAGE, SQL
from rlpf_pipeline.settings import SMOLLM2, TINY

LOADED = (".json", ".safetensors", ".jinja", ".txt", ".model")
"""Suffixes of what is read of a model folder: weights, configurations, tokenizers."""


def digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def known_digest(path: Path) -> str:
    """`file_digest`, once in a process for a file that stays as it is: weights are large, and asked about often."""
    return _digest_as_of(path, path.stat().st_size, path.stat().st_mtime_ns)


@cache
def _digest_as_of(path: Path, size: int, modified: int) -> str:
    return file_digest(path)


def model_digest(name: str) -> str | None:
    """Digest of what is read of the folder of a base model; None where the name is none: a hub's stays as it is.
    One that is there by itself is none, whatever folder has its name."""
    if name in (TINY, SMOLLM2):
        return None
    files = [path for path in sorted(Path(name).glob("*")) if path.suffix in LOADED]
    return digest_of({path.name: known_digest(path) for path in files}) if files else None


def source_digest(*sources: str) -> str:
    """Digest of the project's own source: a module ("training/jobs/reward.py") with all that it imports of the package,
    directly or not; any other file; a folder with all its files ("report/templates"). "sql/…" is beside the package.

    settings.py stays out: the values of the settings are in the recipe.
    """
    files: set[Path] = set()
    waiting = [(SQL.parent if source.startswith("sql/") else PACKAGE) / source for source in sources]
    while waiting:
        path = waiting.pop()
        if path.is_dir():
            waiting += [file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]
        elif path not in files and path != PACKAGE / "settings.py":
            files.add(path)
            waiting += own_imports(path) if path.suffix == ".py" else []
    return digest_of({str(path.relative_to(PACKAGE.parent)): file_digest(path) for path in sorted(files)})


@cache
def own_imports(path: Path) -> list[Path]:
    """Files of the package that a module imports, inside its functions too: `import a.b`, `from a import b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = [PACKAGE.parent.joinpath(*name.split(".")) for name in names if name.split(".")[0] == PACKAGE.name]
    found = [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")]
    return sorted(file for file in found if file.is_file())
