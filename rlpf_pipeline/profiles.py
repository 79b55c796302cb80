"""The run profiles (tiny, demo, upworthy, production), and a run's settings from profile, environment and file.

The YAML file that RLPF_SETTINGS names has sections of the settings, and values that replace those of the profile:

teacher:
  examples_file: our_rewrites.jsonl
policy:
  kl_target: 2.0
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.package import IS_INSTALLED, PACKAGE
from rlpf_pipeline.settings import (
    BaseModelSettings,
    EvaluationSettings,
    ExperimentSettings,
    ImitationSettings,
    LoraSettings,
    MarketSettings,
    PolicySettings,
    RewardSettings,
    Section,
    Settings,
    TeacherSettings,
    faults_of,
)
from rlpf_pipeline.yaml_files import loaded

TOP_LAYERS = LoraSettings(top_layers=12)
MIDDLE_OF_SMOLLM2 = RewardSettings(
    solve_heads=True,
    pooling="mean",
    layers=20,
    sentence_layer=4,
    heads=32,
    learning_rate=2e-4,
    head_learning_rate=2e-3,
    lora=LoraSettings(top_layers=8),
)
"""Texts read where the base knows most of them (docs/reward-model.md)."""

LOYAL = PolicySettings(
    steps=36,
    critic="reward-model",
    kl_budget=10.0,
    spread_penalty=2.0,
    copy_penalty=3.0,
    off_topic_penalty=4.0,
    formula_penalty=2.0,
)
"""Texts that the reward model is sure of, that are no copies, about the same thing as the original, and not all worded
alike (docs/ppo.md).
At a cosine of 0.2, below nearly all that people write for an ad, 1.2 of log odds are lost: more than straying was seen
to gain by the reward model."""

PROFILE_SETTINGS: dict[str, dict[str, object]] = {
    "tiny": {
        "base": BaseModelSettings(name="tiny"),
        "market": MarketSettings(advertisers=40),
        "teacher": TeacherSettings(examples=16, human_examples=32, max_new_tokens=12),
        "reward": RewardSettings(epochs=1),
        "policy": PolicySettings(
            steps=2,
            prompts_per_step=2,
            samples_per_prompt=4,
            max_new_tokens=8,
            minibatches=2,
            epochs=2,
            judge_every=2,
            judge_prompts=2,
        ),
        "evaluation": EvaluationSettings(originals=4, samples_per_original=2),
        "experiment": ExperimentSettings(advertisers=600),
    },
    "demo": {
        "imitation": ImitationSettings(lora=TOP_LAYERS),
        "reward": MIDDLE_OF_SMOLLM2,
        "policy": LOYAL.model_copy(update={"lora": TOP_LAYERS}),
    },
    "upworthy": {
        "source": "upworthy",
        "teacher": TeacherSettings(human_examples=1000),
        "imitation": ImitationSettings(lora=TOP_LAYERS),
        "reward": MIDDLE_OF_SMOLLM2.model_copy(
            update={
                "epochs": 1,
                "learning_rate": 5e-5,
                "head_learning_rate": 5e-4,
                "tokens_per_batch": 1024,
                "max_context_tokens": 0,
            }
        ),
        "policy": LOYAL.model_copy(update={"lora": TOP_LAYERS}),
    },
    "production": {"source": "generic", "reward": MIDDLE_OF_SMOLLM2, "policy": LOYAL},
}


def home_from_environment() -> Path:
    """RLPF_HOME, by default `.rlpf` beside pyproject.toml; of a package from a wheel, in the working folder.

    Raises UserError where it has a `?` or `%`: DuckDB, Dagster and MLflow read these as in URLs, each some of them, and
    write beside the folder.
    """
    home = Path(os.environ.get("RLPF_HOME") or (Path() if IS_INSTALLED else PACKAGE.parent) / ".rlpf").resolve()
    if set("?%") & set(str(home)):
        raise UserError(
            f"RLPF_HOME is {home}: ? and % in a folder's name lead DuckDB, Dagster and MLflow to another one. "
            "Choose a name without them."
        )
    return home


def load_settings(
    profile: str | None = None, data: tuple[Path, ...] | None = None, home: Path | None = None
) -> Settings:
    """Settings of a profile; what is not given comes from RLPF_PROFILE, RLPF_DATA (a path a line), RLPF_HOME.

    RLPF_SETTINGS names a YAML file whose values replace those of the profile, section by section. Raises UserError for
    an unknown profile, and for a file that does not fit.
    """
    profile = profile or os.environ.get("RLPF_PROFILE") or "demo"
    if profile not in PROFILE_SETTINGS:
        raise UserError(
            f"Unknown profile '{profile}'. Choose one of: {', '.join(PROFILE_SETTINGS)} (PROFILE=… or --profile)."
        )
    if data is None:
        data = tuple(Path(p).resolve() for p in os.environ.get("RLPF_DATA", "").split("\n") if p)
    chosen = {"profile": profile, "home": (home or home_from_environment()) / profile, "data": data}
    file = os.environ.get("RLPF_SETTINGS")
    if not file:
        return Settings.model_validate(chosen | PROFILE_SETTINGS[profile])
    own = read_settings_file(Path(file))
    try:
        return Settings.model_validate(chosen | replaced(plain(PROFILE_SETTINGS[profile]), own))
    except ValidationError as error:
        raise UserError(f"The settings of {file} do not fit: {faults_of(error)}.") from error


def plain(sections: dict[str, object]) -> dict[str, Any]:
    return {
        name: own.model_dump(exclude_unset=True) if isinstance(own, Section) else own for name, own in sections.items()
    }


def read_settings_file(path: Path) -> dict[str, Any]:
    """Sections and their values. Raises UserError where the file cannot be read or says what is said elsewhere."""
    try:
        own = loaded(path.read_text(encoding="utf-8"))
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
