"""Scores of texts and other texts: exit codes, messages, and what the commands leave behind."""

from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from rlpf_pipeline.models.adapters import ModelCard, attach_lora, save_model
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.models.reward_folders import save_reward_model
from rlpf_pipeline.models.reward_model import new_reward_model
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, RewardSettings
from rlpf_pipeline_tests.cli.entry_point import ADS, rlpf


def save_tiny_reward_model(folder: Path, cache: Path, objective: Literal["pairwise", "pointwise"] = "pairwise") -> None:
    folder.mkdir()
    base, settings = BaseModelSettings(name="tiny", dtype="float32"), RewardSettings(objective=objective)
    save_reward_model(new_reward_model(base, settings, LoraSettings(), "reward_model", cache), folder)


@pytest.mark.parametrize(
    ("folder", "column", "message"),
    [("nowhere", "text", "is no model folder"), ("model", "headline", "no column 'headline'")],
)
def test_score_explains_a_wrong_folder_and_a_missing_column(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    column: str,
    message: str,
) -> None:
    save_tiny_reward_model(tmp_path / "model", home / "cache")
    (tmp_path / "ads.csv").write_text(ADS)
    arguments = (
        "--reward-model",
        str(tmp_path / folder),
        "--input",
        str(tmp_path / "ads.csv"),
        "--text-column",
        column,
    )
    assert rlpf(monkeypatch, "score", *arguments, "--output", str(tmp_path / "scored.parquet")) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "scored.parquet").exists()


def test_score_adds_its_columns(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny_reward_model(tmp_path / "model", home / "cache")
    (tmp_path / "ads.csv").write_text(ADS)
    arguments = (
        "--reward-model",
        str(tmp_path / "model"),
        "--input",
        str(tmp_path / "ads.csv"),
        "--text-column",
        "text",
    )
    output = tmp_path / "new" / "scored.parquet"
    assert rlpf(monkeypatch, "score", *arguments, "--group-column", "ad_id", "--output", str(output)) == 0
    table = pd.read_parquet(output)
    assert table.columns.tolist()[-4:] == ["reward_mean", "reward_spread", "rank", "p_best"]
    # an untrained model scores 0: both texts of ad a are first, each with one half
    assert table.p_best.tolist() == [0.5, 0.5, 1.0]
    assert table["rank"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text", "Bread"), "is no model folder"),
        ((), "Give either --text"),
        (("--text", "Bread", "--output", "o.parquet"), "Give either --text"),
        (("--input", "ads.csv"), "--input needs --text-column"),
    ],
)
def test_generate_explains_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert rlpf(monkeypatch, "generate", "--policy", str(tmp_path / "nowhere"), *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("objective", "warned"), [("pairwise", False), ("pointwise", True)])
def test_generate_says_what_a_pointwise_models_rewards_are(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    objective: Literal["pairwise", "pointwise"],
    warned: bool,
) -> None:
    save_tiny_reward_model(tmp_path / "judge", home / "cache", objective)
    base = BaseModelSettings(name="tiny", dtype="float32")
    model = attach_lora(load_causal_lm(base, home / "cache"), LoraSettings())
    (tmp_path / "policy").mkdir()
    card = ModelCard(kind="policy", base=base, adapters=["imitation_v2"])
    save_model(tmp_path / "policy", card, model, load_tokenizer(base, home / "cache"))
    models = ("--policy", str(tmp_path / "policy"), "--reward-model", str(tmp_path / "judge"))
    assert rlpf(monkeypatch, "generate", *models, "--text", "Bread") == 0
    assert ("trained on log CTRs" in capsys.readouterr().err) == warned
