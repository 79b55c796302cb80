"""The job by every algorithm, on a snapshot of the simulated market with tiny models."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from rlpf_pipeline.artifacts import Recipe, publish, subset
from rlpf_pipeline.evaluation.jobs.policy import work as evaluate
from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.models.adapters import ModelCard, attach_lora, load_policy, save_model
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.models.reward_model import new_reward_model, save_reward_model
from rlpf_pipeline.preferences.stages import build_preference_pairs, build_variant_performance, export_snapshot
from rlpf_pipeline.settings import Algorithm, LoraSettings, MarketSettings, RewardSettings, load_settings
from rlpf_pipeline.training.jobs.policy import work
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.suggest import load_writer, suggest
from rlpf_pipeline.warehouse import Warehouse
from rlpf_pipeline_tests.conftest import TINY

QUIET = Reporter("test")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A PPO run of the profile `tiny` on models that were never trained; the reward models' heads are random."""
    home = tmp_path_factory.mktemp("home")
    settings = load_settings("tiny", (), home)
    settings = settings.model_copy(update={"base": TINY})
    pq.write_table(simulate_history(MarketSettings(advertisers=40)), home / "raw.parquet")
    with Warehouse(home / "w.duckdb") as warehouse:
        build_variant_performance(warehouse, home / "raw.parquet", settings.pairs, settings.seed)
        build_preference_pairs(warehouse, settings.pairs)
        export_snapshot(warehouse, home)
    torch.manual_seed(0)
    inputs = {"preference_snapshot": home, "imitation_v2": home / "imitation_v2"}
    for name in ("reward_model", "evaluation_reward_model"):
        inputs[name] = home / name
        inputs[name].mkdir()
        model = new_reward_model(TINY, RewardSettings(), LoraSettings(), name, settings.cache)
        torch.nn.init.normal_(model.head.weight)
        save_reward_model(model, inputs[name])
    start = attach_lora(load_causal_lm(TINY, settings.cache), LoraSettings())
    inputs["imitation_v2"].mkdir()
    card = ModelCard(kind="policy", base=TINY, adapters=["imitation_v2"])
    save_model(inputs["imitation_v2"], card, start, load_tokenizer(TINY, settings.cache))
    recipe = Recipe(stage="adllama", settings=dict(subset(settings, "policy")))
    return RunConfig(settings=settings, recipe=recipe, inputs=inputs, output=home / "adllama")


def run(config: RunConfig, algorithm: Algorithm) -> RunConfig:
    chosen = config.by(algorithm)
    with publish(chosen.output, chosen.recipe) as (folder, metrics):
        metrics |= work(chosen, folder, QUIET)
    return chosen


def moved(folder: Path, config: RunConfig) -> float:
    """The largest change of a weight from imitation v2."""
    cache = config.settings.cache
    start, end = (dict(load_policy(f, cache)[0].named_parameters()) for f in (config.inputs["imitation_v2"], folder))
    return max(float((start[name] - end[name]).abs().max()) for name in start)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo", "dpo"])
def test_a_trained_policy_is_a_folder_that_writes(config: RunConfig, algorithm: Algorithm) -> None:
    folder = run(config, algorithm).output
    assert folder.name == ("adllama" if algorithm == "ppo" else f"adllama-{algorithm}")
    assert ModelCard.read(folder).adapters == ["imitation_v2", folder.name]
    steps = config.settings.policy.steps
    assert pd.read_parquet(folder / "history.parquet").step.tolist() == list(range(1, steps + 1))
    curve = pd.read_parquet(folder / "curve.parquet")
    assert curve.step.tolist() == [0, steps]
    assert curve.kl[0] == pytest.approx(0, abs=1e-6)
    assert {"curve.svg", "history.svg"} <= {path.name for path in folder.iterdir()}
    if algorithm != "ppo":  # whose best policy may be the one it started from
        assert moved(folder, config) > 0
    writer = load_writer(folder, config.settings.cache, CPU)
    assert writer.settings.algorithm == algorithm
    assert [len(own) for own in suggest(writer, ["Fresh bread"], 1, seed=1)] <= [1]


def test_every_algorithm_starts_from_the_same_judgement(config: RunConfig) -> None:
    starts = [pd.read_parquet(run(config, a).output / "curve.parquet").iloc[0] for a in ("ppo", "dpo", "best-of-n")]
    for start in starts[1:]:
        pd.testing.assert_series_equal(start, starts[0], check_exact=False, rtol=1e-4, atol=1e-6)


def test_best_of_n_writes_what_its_reward_model_likes(config: RunConfig) -> None:
    folder = run(config, "best-of-n").output
    n = config.settings.policy.samples_per_prompt
    assert ModelCard.read(folder).best_of == n
    assert moved(folder, config) == 0
    curve = pd.read_parquet(folder / "curve.parquet")
    assert curve.kl.tolist() == pytest.approx([0, np.log(n) - (n - 1) / n])
    assert curve.reward[1] > curve.reward[0]
    writer = load_writer(folder, config.settings.cache, CPU)
    assert writer.best_of is not None
    assert writer.best_of.n == n


def test_the_evaluation_lets_best_of_n_choose(config: RunConfig, tmp_path: Path) -> None:
    folder = run(config, "best-of-n").output
    inputs = {**config.inputs, "adllama": folder}
    metrics = evaluate(config.model_copy(update={"inputs": inputs}), tmp_path, QUIET)
    n = config.settings.policy.samples_per_prompt
    assert metrics["adllama_kl"] == pytest.approx(np.log(n) - (n - 1) / n)
    assert metrics["reward_difference"] > 0


def test_another_algorithm_has_a_recipe_and_an_output_of_its_own(config: RunConfig) -> None:
    rloo = config.by("rloo")
    assert rloo.settings.policy.algorithm == "rloo"
    assert rloo.recipe.settings["policy"] == rloo.settings.policy.model_dump(mode="json")
    assert (rloo.recipe.stage, rloo.output) == ("adllama-rloo", config.output.with_name("adllama-rloo"))
    assert config.by("ppo") is config
