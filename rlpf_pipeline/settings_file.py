"""The YAML file that RLPF_SETTINGS names: sections of the settings, and values that replace those of the profile.

teacher:
  examples_file: our_rewrites.jsonl
policy:
  kl_target: 2.0
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rlpf_pipeline.errors import UserError


def read_settings_file(path: Path) -> dict[str, Any]:
    """Sections and their values. Raises UserError where the file cannot be read or says what is said elsewhere."""
    try:
        own = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"RLPF_SETTINGS names {path}, which cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(own, dict) or own.keys() & {"profile", "home", "data"}:
        raise UserError(
            f"{path} must hold sections of settings.py and their values, such as `policy: {{kl_target: 2.0}}`; "
            "profile, home and data are given by RLPF_PROFILE, RLPF_HOME and RLPF_DATA."
        )
    return own


def replaced(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`values` with those of `own` in their place, dictionaries all the way down."""
    nested = [
        name for name in values.keys() & own.keys() if isinstance(values[name], dict) and isinstance(own[name], dict)
    ]
    return values | own | {name: replaced(values[name], own[name]) for name in nested}
