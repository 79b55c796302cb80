"""The table of stages: reuse while nothing changed, and rebuild of exactly what depends on a change."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlpf_pipeline.artifacts import Recipe, publish
from rlpf_pipeline.defs import steps
from rlpf_pipeline.defs.resources import PipelineSettings
from rlpf_pipeline.defs.stages import STAGES, folder_of, manifest_of, recipe_of
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.profiles import load_settings
from rlpf_pipeline.settings import (
    BaseModelSettings,
    EvaluationSettings,
    ImitationSettings,
    MarketSettings,
    PolicySettings,
    Settings,
    TeacherSettings,
)
from rlpf_pipeline.whole_files import lock_of, locked


def stale(settings: Settings) -> set[str]:
    return {name for name in STAGES if manifest_of(name, settings).recipe != recipe_of(name, settings)}


def test_inputs_come_before_the_stages_that_read_them() -> None:
    names = list(STAGES)
    assert all(names.index(needed) < names.index(name) for name, stage in STAGES.items() for needed in stage.inputs)


def test_nothing_is_stale_when_nothing_changed(everything_built: Settings) -> None:
    assert stale(everything_built) == set()


@pytest.mark.parametrize(
    ("change", "rebuilt"),
    [
        ({"policy": PolicySettings(steps=99)}, {"adllama", "policy_evaluation"}),
        ({"imitation": ImitationSettings(epochs=9)}, {"imitation_v1", "imitation_v2"}),
        ({"evaluation": EvaluationSettings(originals=9)}, {"imitation_evaluation", "policy_evaluation"}),
    ],
)
def test_a_setting_makes_stale_only_what_depends_on_it(
    everything_built: Settings, change: dict[str, object], rebuilt: set[str]
) -> None:
    assert stale(everything_built.model_copy(update=change)) == rebuilt


def test_the_experiment_depends_on_no_training_setting(everything_built: Settings) -> None:
    changed = everything_built.model_copy(update={"policy": PolicySettings(steps=99)})
    assert recipe_of("ab_experiment", changed) == recipe_of("ab_experiment", everything_built)


def test_a_changed_file_of_examples_is_seen(settings: Settings, tmp_path: Path) -> None:
    with publish(folder_of("preference_snapshot", settings), Recipe(stage="preference_snapshot")):
        pass
    file = tmp_path / "own.jsonl"
    own = settings.model_copy(update={"teacher": TeacherSettings(examples_file=file)})
    with pytest.raises(UserError, match=r"examples_file names no file: .*own\.jsonl"):
        recipe_of("curated_examples", own)
    file.write_text("{}\n")
    before = recipe_of("curated_examples", own)
    assert recipe_of("curated_examples", own) == before
    file.write_text("{}\n{}\n")
    assert recipe_of("curated_examples", own) != before


def test_a_changed_folder_of_a_base_model_is_seen(everything_built: Settings, tmp_path: Path) -> None:
    weights, readme = tmp_path / "llama" / "model.safetensors", tmp_path / "llama" / "README.md"
    weights.parent.mkdir()
    weights.write_text("first")
    name = str(weights.parent)
    based = everything_built.model_copy(update={"base": BaseModelSettings(name=name)})
    taught = everything_built.model_copy(update={"teacher": TeacherSettings(model=name)})
    before = [recipe_of("reward_model", based), recipe_of("curated_examples", taught)]
    readme.write_text("what no model is made of")
    assert [recipe_of("reward_model", based), recipe_of("curated_examples", taught)] == before
    weights.write_text("another")
    after = [recipe_of("reward_model", based), recipe_of("curated_examples", taught)]
    assert all(own != former for own, former in zip(after, before, strict=True))
    assert recipe_of("preference_pairs", based) == recipe_of("preference_pairs", everything_built)


def test_a_missing_input_names_itself_and_the_command(settings: Settings) -> None:
    with pytest.raises(UserError, match=r"no imitation_v2 .*rlpf run --profile tiny"):
        recipe_of("adllama", settings)


def test_the_simulated_market_refuses_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PROFILE=production"):
        steps.raw_multitext_ads(load_settings("demo", (tmp_path / "a.csv",), tmp_path))


def test_real_profiles_need_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs data"):
        steps.raw_multitext_ads(load_settings("upworthy", (), tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv"):
        steps.raw_multitext_ads(load_settings("upworthy", (tmp_path / "absent.csv",), tmp_path))


def test_patterns_of_the_web_ui_name_the_files_that_are_there_at_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RLPF_DATA", str(tmp_path / "*.csv"))
    pipeline = PipelineSettings(profile="production")
    with pytest.raises(UserError, match=r"No file matches '.*\*\.csv'"):
        steps.raw_multitext_ads(pipeline.load())
    read = []
    for month in ("june", "july"):
        row = f"{month},Save now,100,1\n"
        (tmp_path / f"{month}.csv").write_text("ad_id,text,impressions,clicks\n" + row)
        read.append(steps.raw_multitext_ads(pipeline.load()).manifest.metrics["read"])
    assert read == [1, 2]


def test_another_profile_chosen_in_the_launchpad_is_not_given_the_files_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPF_HOME", str(tmp_path))
    monkeypatch.setenv("RLPF_PROFILE", "production")
    monkeypatch.setenv("RLPF_DATA", str(tmp_path / "june.csv"))
    assert PipelineSettings().load().data == (tmp_path / "june.csv",)
    assert PipelineSettings(profile="production").load().data == (tmp_path / "june.csv",)
    assert PipelineSettings(profile="upworthy").load().data == ()
    assert PipelineSettings(profile="tiny").load().data == ()


def test_ingested_ads_stay_when_no_file_is_given(tmp_path: Path) -> None:
    settings = load_settings("upworthy", (), tmp_path)
    with publish(folder_of("raw_multitext_ads", settings), Recipe(stage="raw_multitext_ads")):
        pass
    assert steps.raw_multitext_ads(settings).reused


def test_simulated_ads_pass_the_same_validation_as_files(settings: Settings) -> None:
    counts = steps.raw_multitext_ads(settings).manifest.metrics
    assert counts["read"] == counts["accepted"]
    assert counts["rejected"] == 0


def test_a_raw_table_that_was_changed_is_not_worked_on(settings: Settings) -> None:
    """Its rows would stand under the digest of others, and be taken for up to date ever after."""
    table = steps.raw_multitext_ads(settings).folder / "multitext_ads.parquet"
    pq.write_table(pq.read_table(table).slice(1), table)
    with pytest.raises(UserError, match=r"multitext_ads\.parquet is not what was written.*make it again"):
        steps.variant_performance(settings)


def test_pairs_of_other_variants_make_no_snapshot(tmp_path: Path) -> None:
    """They number variants: of others, each pair would be of other texts."""

    def of_market(advertisers: int) -> Settings:
        tiny = load_settings("tiny", (), tmp_path)
        return tiny.model_copy(update={"market": MarketSettings(advertisers=advertisers)})

    first, second = of_market(12), of_market(9)
    for step in (steps.raw_multitext_ads, steps.variant_performance, steps.preference_pairs):
        step(first)
    for step in (steps.raw_multitext_ads, steps.variant_performance):
        step(second)
    with pytest.raises(UserError, match=r"preference_pairs was made from another variant_performance"):
        steps.preference_snapshot(second)
    assert not folder_of("preference_snapshot", second).exists()
    steps.preference_pairs(second)
    counts = steps.preference_snapshot(second).manifest.metrics
    assert counts["pairs"] == manifest_of("preference_pairs", second).metrics["pairs"]


def test_a_warehouse_that_is_removed_between_two_stages_is_made_again(tmp_path: Path) -> None:
    """What reads it must not leave an empty one, in which later runs would look for the tables of before."""
    tiny = load_settings("tiny", (), tmp_path)
    settings = tiny.model_copy(update={"market": MarketSettings(advertisers=9)})
    tables = steps.variant_performance, steps.preference_pairs
    for step in (steps.raw_multitext_ads, *tables):
        step(settings)
    settings.warehouse.unlink()
    with pytest.raises(UserError, match=r"no preference_pairs .*Materialise it first"):
        steps.preference_snapshot(settings)
    assert not settings.warehouse.exists()
    assert not any(step(settings).reused for step in tables)
    assert steps.preference_snapshot(settings).manifest.metrics["ads"] > 0


def test_while_the_variants_are_made_nobody_replaces_the_raw_table(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are made in several queries, each of which opens its file anew."""
    small = settings.model_copy(update={"market": MarketSettings(advertisers=3)})
    raw = folder_of("raw_multitext_ads", small)
    steps.raw_multitext_ads(small)

    def is_asked_meanwhile(*_: object) -> dict[str, int]:
        with pytest.raises(UserError, match="taken"), locked(lock_of(raw), "taken"):
            pass
        return {}

    monkeypatch.setattr("rlpf_pipeline.preferences.stages.build_variant_performance", is_asked_meanwhile)
    assert not steps.variant_performance(small).reused


def test_a_report_on_real_ads_promises_no_experiment(settings: Settings) -> None:
    real = settings.model_copy(update={"source": "generic"})
    with pytest.raises(UserError, match=r"no click truth is planted.*rlpf ab-report --data"):
        steps.ab_report(real)


def test_a_report_whose_experiment_lacks_its_file_says_what_to_do(everything_built: Settings) -> None:
    experiment = folder_of("ab_experiment", everything_built)
    with publish(experiment, recipe_of("ab_experiment", everything_built)) as (building, _):
        (building / "advertisers.parquet").write_bytes(b"rows")
        (building / "planted_truth.json").write_text("{}")
    (experiment / "advertisers.parquet").unlink()
    with pytest.raises(UserError, match=r"advertisers\.parquet is missing.*make it again"):
        steps.ab_report(everything_built)
