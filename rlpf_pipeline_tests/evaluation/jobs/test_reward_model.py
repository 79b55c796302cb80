"""The job on a snapshot of the simulated market with untrained tiny models."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.artifacts import Recipe
from rlpf_pipeline.contracts import REWARD_SCORES
from rlpf_pipeline.evaluation.jobs.reward_model import work
from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.models.adapters import ModelCard
from rlpf_pipeline.models.reward_folders import save_reward_model
from rlpf_pipeline.models.reward_model import new_reward_model
from rlpf_pipeline.preferences.stages import build_preference_pairs, build_variant_performance, export_snapshot
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import BaseModelSettings, LoraSettings, MarketSettings, RewardSettings
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.warehouse import Warehouse

TRAINED = ("reward_model", "evaluation_reward_model", "pointwise_reward_model")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    home = tmp_path_factory.mktemp("home")
    settings = load_settings("tiny", (), home)
    pq.write_table(simulate_history(MarketSettings(advertisers=40)), home / "raw.parquet")
    with Warehouse(home / "w.duckdb") as warehouse:
        build_variant_performance(warehouse, home / "raw.parquet", settings.pairs, settings.seed)
        build_preference_pairs(warehouse, settings.pairs)
        export_snapshot(warehouse, home)
    inputs = {"preference_snapshot": home}
    for name in TRAINED:
        inputs[name] = home / name
        inputs[name].mkdir()
        base = BaseModelSettings(name="tiny", dtype="float32")
        own = RewardSettings(objective="pointwise" if name == "pointwise_reward_model" else "pairwise")
        model = new_reward_model(base, own, LoraSettings(), name, settings.cache)
        save_reward_model(model, inputs[name])
    recipe = Recipe(stage="reward_model_evaluation")
    return RunConfig(settings=settings, recipe=recipe, inputs=inputs, output=home / "evaluation")


def test_models_and_baselines_stand_in_one_table(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = work(config, tmp_path, Reporter("test"))
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert tuple(scores.columns) == REWARD_SCORES.column_names
    baselines = {"minilm", "tfidf", "longer_wins", "chance"}
    said = "lacks that baseline" in capsys.readouterr().out
    assert set(scores.model) == {*TRAINED, *baselines} - ({"minilm"} if said else set())
    assert scores.groupby("model").size().nunique() == 1
    assert (
        json.loads((tmp_path / "figures.json").read_text())["models"]["tfidf"]["accuracy"] == metrics["tfidf_accuracy"]
    )
    assert (tmp_path / "comparison.md").is_file()


def test_metrics_are_finite_and_an_untrained_model_is_chance(config: RunConfig, tmp_path: Path) -> None:
    metrics = work(config, tmp_path, Reporter("test"))
    assert all(math.isfinite(value) for value in metrics.values() if isinstance(value, float))
    assert metrics["accuracy"] == metrics["evaluation_accuracy"] == metrics["pointwise_accuracy"] == 0.5
    assert "pointwise_negative_log_likelihood" not in metrics
    assert metrics["negative_log_likelihood"] == pytest.approx(math.log(2))
    assert 0.5 < float(metrics["noise_ceiling"] or 0) < 1


def test_a_reward_model_that_was_trained_pointwise_gets_no_likelihood(config: RunConfig, tmp_path: Path) -> None:
    """reward.objective: pointwise makes all three so."""
    folder = shutil.copytree(config.inputs["reward_model"], tmp_path / "reward_model")
    card = ModelCard.read(folder).model_copy(update={"objective": "pointwise"})
    (folder / "model.json").write_text(card.model_dump_json())
    changed = config.model_copy(update={"inputs": config.inputs | {"reward_model": folder}})
    (tmp_path / "evaluation").mkdir()
    metrics = work(changed, tmp_path / "evaluation", Reporter("test"))
    assert "accuracy" in metrics
    assert not {"negative_log_likelihood", "calibration_error"} & set(metrics)
    assert "evaluation_negative_log_likelihood" in metrics
