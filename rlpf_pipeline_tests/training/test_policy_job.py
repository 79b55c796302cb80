"""The job by every algorithm, on a snapshot of the simulated market with tiny models."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from rlpf_pipeline import sentence_embeddings
from rlpf_pipeline.artifacts import Recipe, publish, read_manifest, subset
from rlpf_pipeline.cli import app
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.jobs.policy import work as evaluate
from rlpf_pipeline.market.history import simulate_history
from rlpf_pipeline.models.adapters import ModelCard, attach_lora, load_policy, save_model
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.models.reward_folders import load_reward_model, save_reward_model
from rlpf_pipeline.models.reward_model import new_reward_model
from rlpf_pipeline.preferences.stages import build_preference_pairs, build_variant_performance, export_snapshot
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import Algorithm, LoraSettings, MarketSettings, PolicySettings, RewardSettings
from rlpf_pipeline.training.jobs.policy import originals_out_of_reach, read_task, require_supported, work
from rlpf_pipeline.training.prompts import Prompt
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline.training.rewards import scored
from rlpf_pipeline.training.rollout import Sampler
from rlpf_pipeline.training.run_config import RunConfig
from rlpf_pipeline.training.sampling import Sampling
from rlpf_pipeline.training.snapshot import original_of, read_needed_ads
from rlpf_pipeline.training.suggest import load_writer
from rlpf_pipeline.training.usual import LEAST_DEVIATION, usual_length
from rlpf_pipeline.warehouse import Warehouse
from rlpf_pipeline_tests.conftest import TINY, needs_minilm
from rlpf_pipeline_tests.training.test_vllm_sampler import install_stand_in

QUIET = Reporter("test")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A PPO run of the profile `tiny` on models that were never trained; the reward models' heads are random, and
    nothing but their gain and its spread counts."""
    home = tmp_path_factory.mktemp("home")
    settings = load_settings("tiny", (), home)
    penalties = {"length": "none", "missing_eos_penalty": 0.0, "spread_penalty": 0.5}
    policy = settings.policy.model_copy(update=penalties)
    settings = settings.model_copy(update={"base": TINY, "policy": policy})
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


FolderBy = Callable[[Algorithm], Path]


@pytest.fixture(scope="module")
def folder_by(config: RunConfig) -> FolderBy:
    """The folder that the job writes by an algorithm, run once."""

    @cache
    def run(algorithm: Algorithm) -> Path:
        chosen = config.by(algorithm)
        with publish(chosen.output, chosen.recipe) as (folder, metrics):
            metrics |= work(chosen, folder, QUIET)
        return chosen.output

    return run


def moved(folder: Path, config: RunConfig) -> float:
    """The largest change of a weight from imitation v2."""
    folders = (config.inputs["imitation_v2"], folder)
    start, end = (dict(load_policy(each, config.settings.cache)[0].named_parameters()) for each in folders)
    return max(float((start[name] - end[name]).abs().max()) for name in start)


def judged_again(folder: Path, config: RunConfig) -> float:
    """Mean gain, by the reward model, of what the policy of the folder writes for the judges' prompts with the judges'
    random numbers."""
    settings, task, writer = config.settings.policy, read_task(config), load_writer(folder, config.settings.cache, CPU)
    shape = (len(task.judges.prompts), settings.judge_samples * (writer.best_of.n if writer.best_of else 1))
    tokens = settings.max_new_tokens
    uniform = np.random.default_rng([config.settings.seed, 1]).random((*shape, tokens), np.float32)
    sampler = Sampler(writer.model, Sampling.of(writer.tokenizer, settings))
    prompts = [prompt.ids for prompt in task.judges.prompts]
    responses = sampler.sample(prompts, shape[1], torch.from_numpy(uniform.reshape(-1, tokens)))
    if writer.best_of:
        responses = writer.best_of.pick(task.judges.prompts, responses)
    return float(scored(task.reward_model, writer.tokenizer, task.judges.prompts, responses).gains.mean())


@pytest.mark.parametrize("job", [read_task, lambda config: evaluate(config, config.output, QUIET)])
def test_texts_beyond_the_bases_positions_are_told_before_work(
    config: RunConfig, job: Callable[[RunConfig], object]
) -> None:
    policy = config.settings.policy.model_copy(update={"max_new_tokens": 500})
    inputs = config.inputs | {"adllama": config.inputs["imitation_v2"]}
    settings = config.settings.model_copy(update={"policy": policy})
    with pytest.raises(UserError, match=r"reads 512 tokens.*Lower policy\.max_new_tokens"):
        job(config.model_copy(update={"settings": settings, "inputs": inputs}))


def test_dpo_is_refused_a_beta_of_nothing(config: RunConfig) -> None:
    policy = config.settings.policy.model_copy(update={"kl_coefficient": 0.0})
    asked = config.model_copy(update={"settings": config.settings.model_copy(update={"policy": policy})})
    assert asked.by("grpo").settings.policy.kl_coefficient == 0
    with pytest.raises(UserError, match=r"Settings of adllama do not fit dpo: .*policy\.kl_coefficient is the beta"):
        asked.by("dpo")


def test_comparators_are_judged_whatever_ppos_mini_batches(config: RunConfig) -> None:
    chosen = config.by("dpo")
    policy = chosen.settings.policy.model_copy(update={"minibatches": 1000})
    settings = chosen.settings.model_copy(update={"policy": policy})
    task = read_task(chosen.model_copy(update={"settings": settings}))
    assert task.ppo(attach_lora(task.reference, policy.lora)).judges is task.judges


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo", "dpo"])
def test_a_trained_policy_is_a_folder_that_writes(config: RunConfig, folder_by: FolderBy, algorithm: Algorithm) -> None:
    folder = folder_by(algorithm)
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
    assert load_writer(folder, config.settings.cache, CPU).settings.algorithm == algorithm
    assert judged_again(folder, config) == pytest.approx(read_manifest(folder).metrics["chosen_reward"], rel=1e-4)


def test_what_spread_is_usual_is_asked_of_people_s_own_texts(config: RunConfig, folder_by: FolderBy) -> None:
    task, kept = read_task(config), read_manifest(folder_by("ppo")).metrics
    of_training, of_judge = task.config.settings.policy.usual_spread, task.judges.usual_spread
    for model, usual in ((task.reward_model, of_training), (task.judges.model, of_judge)):
        spreads = []
        for ad in read_needed_ads(config.inputs["preference_snapshot"], "validation"):
            scores = model.score([(ad.context, ad.texts)])[0]
            original = ad.texts.index(original_of(ad))
            spreads += [own.std() for i, own in enumerate(scores - scores[original]) if i != original]
        assert usual == pytest.approx(np.quantile(spreads, 0.9), rel=1e-5)
        assert usual > 0
    assert (kept["usual_spread"], kept["judge_usual_spread"]) == (of_training, of_judge)


def test_what_length_is_usual_is_asked_of_people_s_own_texts(config: RunConfig) -> None:
    policy = config.settings.policy.model_copy(update={"length": "curve"})
    config = config.model_copy(update={"settings": config.settings.model_copy(update={"policy": policy})})
    task, ratios = read_task(config), []
    for ad in read_needed_ads(config.inputs["preference_snapshot"], "validation"):
        lengths = [len(task.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ad.texts]
        original = ad.texts.index(original_of(ad))
        ratios += [np.log(own / lengths[original]) for i, own in enumerate(lengths) if i != original]
    usual = task.config.settings.policy.usual_length
    assert usual == pytest.approx(np.sqrt(np.mean(np.square(ratios))))
    assert usual > LEAST_DEVIATION


def test_texts_of_equal_length_leave_others_possible(config: RunConfig) -> None:
    ads = read_needed_ads(config.inputs["preference_snapshot"], "validation")
    same = [ad._replace(texts=("a", "b")) for ad in ads[:2]]
    assert usual_length(load_tokenizer(TINY, config.settings.cache), same) == LEAST_DEVIATION


def test_originals_too_long_for_the_policy_to_match_are_counted() -> None:
    prompts = [Prompt("ad", None, "Bread.", [1], tokens) for tokens in (10, 33, 34, 80)]
    settings = PolicySettings(max_new_tokens=28, shortest=0.8)  # 27 and the end mark; .8 of 34 is 27.2
    assert originals_out_of_reach(prompts, settings) == 0.5
    assert originals_out_of_reach(prompts, settings.model_copy(update={"length": "linear"})) == 0.0
    assert originals_out_of_reach(prompts, settings.model_copy(update={"length_penalty": 0.0})) == 0.0


@pytest.mark.parametrize("changed", [{"algorithm": "rloo"}, {"critic_states": "own"}, {"sampler": "vllm"}])
def test_what_needs_a_whole_base_on_every_rank_is_refused_with_fsdp(changed: dict[str, str]) -> None:
    require_supported(PolicySettings(), sharded=True)
    with pytest.raises(UserError, match=r"FSDP.*gpus-8"):
        require_supported(PolicySettings().model_copy(update=changed), sharded=True)


def test_vllm_draws_for_ppo_alone() -> None:
    require_supported(PolicySettings(sampler="vllm"), sharded=False)
    with pytest.raises(UserError, match=r"policy\.sampler vllm is for policy\.algorithm ppo, not for rloo"):
        require_supported(PolicySettings(sampler="vllm", algorithm="rloo"), sharded=False)


def test_ppo_learns_from_what_vllm_draws(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From what the stand-in says, which always has as many tokens."""
    install_stand_in(tmp_path, monkeypatch)
    policy = config.settings.policy.model_copy(update={"sampler": "vllm", "steps": 2})
    settings = config.settings.model_copy(update={"policy": policy})
    config = config.model_copy(update={"settings": settings, "output": tmp_path / "adllama"})
    with publish(config.output, config.recipe) as (folder, metrics):
        metrics |= work(config, folder, QUIET)
    history = pd.read_parquet(config.output / "history.parquet")
    assert history.tokens.tolist() == [4, 4]
    assert (history.gradient_norm > 0).all()
    assert {path.name for path in tmp_path.iterdir()} == {"adllama", ".adllama.checkpoint", "bin"}


def test_every_algorithm_starts_from_the_same_judgement(folder_by: FolderBy) -> None:
    starts = [pd.read_parquet(folder_by(a) / "curve.parquet").iloc[0] for a in ("ppo", "dpo", "best-of-n")]
    for start in starts[1:]:
        pd.testing.assert_series_equal(start, starts[0], check_exact=False, rtol=1e-4, atol=1e-6)


def test_best_of_n_writes_what_its_reward_model_likes(config: RunConfig, folder_by: FolderBy) -> None:
    folder = folder_by("best-of-n")
    n = config.settings.policy.samples_per_prompt
    assert ModelCard.read(folder).best_of == n
    assert moved(folder, config) == 0
    curve = pd.read_parquet(folder / "curve.parquet")
    assert curve.kl.tolist() == pytest.approx([0, np.log(n) - (n - 1) / n])
    assert curve.reward[1] > curve.reward[0]
    assert judged_again(folder, config) == pytest.approx(curve.reward[1], rel=1e-4)


def test_the_evaluation_lets_best_of_n_choose(config: RunConfig, folder_by: FolderBy, tmp_path: Path) -> None:
    inputs = {**config.inputs, "adllama": folder_by("best-of-n")}
    metrics = evaluate(config.model_copy(update={"inputs": inputs}), tmp_path, QUIET)
    n = config.settings.policy.samples_per_prompt
    assert metrics["adllama_kl"] == pytest.approx(np.log(n) - (n - 1) / n)
    assert metrics["reward_difference"] > 0


def test_the_evaluation_says_how_much_the_heads_differ(config: RunConfig, folder_by: FolderBy, tmp_path: Path) -> None:
    inputs = {**config.inputs, "adllama": folder_by("ppo")}
    metrics = evaluate(config.model_copy(update={"inputs": inputs}), tmp_path, QUIET)
    suggestions = pd.read_parquet(tmp_path / "suggestions.parquet")
    model = load_reward_model(config.inputs["reward_model"], config.settings.cache)
    spreads = []
    for own in suggestions.itertuples():
        text, original = model.score([(own.context, [own.text, own.original])])[0]
        spreads.append((text - original).std())
    assert max(spreads) > 0
    assert suggestions.reward_spread.tolist() == pytest.approx(spreads, rel=1e-3, abs=1e-6)
    assert metrics["adllama_reward_spread"] == pytest.approx(
        suggestions[suggestions.policy == "adllama"].reward_spread.mean()
    )


@needs_minilm
def test_the_evaluation_says_how_near_suggestions_stay_to_their_originals(
    config: RunConfig, folder_by: FolderBy, tmp_path: Path
) -> None:
    inputs = {**config.inputs, "adllama": folder_by("ppo")}
    metrics = evaluate(config.model_copy(update={"inputs": inputs}), tmp_path, QUIET)
    suggestions = pd.read_parquet(tmp_path / "suggestions.parquet")
    vectors = sentence_embeddings.embed([*suggestions.text, *suggestions.original])
    nearness = [vectors[text] @ vectors[own] for text, own in zip(suggestions.text, suggestions.original, strict=True)]
    assert suggestions.relevance.tolist() == pytest.approx(nearness)
    own = suggestions[suggestions.policy == "adllama"]
    assert metrics["adllama_relevance"] == pytest.approx(own.relevance.mean())


@pytest.mark.parametrize("algorithm", ["rloo", "best-of-n"])
def test_generate_takes_its_folder(
    config: RunConfig, folder_by: FolderBy, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPF_HOME", str(config.settings.instance))
    asked = ["generate", "--policy", str(folder_by(algorithm)), "--text", "Fresh bread", "-n", "2"]
    outcome = CliRunner().invoke(app, asked, catch_exceptions=False)
    written, lacking = outcome.stdout.splitlines(), "distinct finished texts were found" in outcome.stderr
    assert outcome.exit_code == 0
    assert len(written) == 2 or (len(written) < 2 and lacking)


def test_another_algorithm_has_a_recipe_and_an_output_of_its_own(config: RunConfig) -> None:
    rloo = config.by("rloo")
    assert rloo.settings.policy.algorithm == "rloo"
    assert rloo.recipe.settings["policy"] == rloo.settings.policy.model_dump(mode="json")
    assert (rloo.recipe.stage, rloo.output) == ("adllama-rloo", config.output.with_name("adllama-rloo"))
    assert config.by("ppo") is config


def test_a_policy_of_settings_that_are_no_more_is_refused(config: RunConfig, tmp_path: Path) -> None:
    recipe = Recipe(stage="adllama", settings={"policy": {"gamma": 95, "coin": 1}})
    with publish(tmp_path / "adllama", recipe) as (folder, _):
        copytree(config.inputs["imitation_v2"], folder, dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"gamma: Input should be less than or equal to 1; coin: Extra inputs"):
        load_writer(tmp_path / "adllama", config.settings.cache, CPU)


def test_an_imitation_model_writes_as_the_profile_says(config: RunConfig) -> None:
    """It was trained without drawing: its own settings hold no length or temperature."""
    own = config.settings.policy.model_copy(update={"max_new_tokens": 64})
    assert load_writer(config.inputs["imitation_v2"], config.settings.cache, CPU, own).settings == own
