"""The user's own settings over those of a profile."""

import re
from pathlib import Path

import pytest

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.package import PACKAGE
from rlpf_pipeline.profiles import load_settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings.yaml"
    monkeypatch.setenv("RLPF_SETTINGS", str(path))
    return path


def test_own_settings_replace_those_of_the_profile_and_leave_the_rest(file: Path, tmp_path: Path) -> None:
    file.write_text(
        "seed: 4\nteacher: {examples_file: own.jsonl}\nreward: {lora: {rank: 4}}\nevaluation: {batch_size: 2}\n"
    )
    settings = load_settings("demo", (), tmp_path)
    assert settings.seed == 4
    assert settings.teacher.examples_file == Path.cwd() / "own.jsonl"
    assert settings.teacher.examples == 150
    assert (settings.reward.lora.rank, settings.reward.lora.top_layers) == (4, 8)  # 8 is the profile's
    assert settings.evaluation.batch_size == 2


def test_the_shipped_settings_of_an_8b_base_fit_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """docs/accelerate.md computes the memory of 1,024 tokens at once."""
    monkeypatch.setenv("RLPF_SETTINGS", str(PACKAGE / "training" / "accelerate" / "settings" / "llama-8b.yaml"))
    settings = load_settings("production", (), tmp_path)
    assert settings.base.name.endswith("Llama-3.1-8B-Instruct")
    assert settings.policy.tokens_per_forward == settings.reward.tokens_per_forward == 1024


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("policy: {kl_traget: 2.0}", r"policy\.kl_traget: Extra inputs"),
        ("policy: {gamma: 95}", r"policy\.gamma: Input should be less than or equal to 1"),
        ("reward: {tokens_per_batch: 0}", r"reward\.tokens_per_batch: Input should be greater than 0"),
        ("policy: {clip_value: .inf}", r"policy\.clip_value: Input should be a finite number"),
        ("market: {novelty: .nan}", r"market\.novelty: Input should be a finite number"),
        ("seed: 4294967295", r"seed: Input should be less than"),
        ("pairs: {test: 0.9}", r"test=0\.9, pairs\.evaluation=0\.25 leave nothing for training"),
        ("pairs: {validation: -0.1}", r"pairs\.validation: Input should be greater than or equal to 0"),
        ("policy: {shortest: 2}", r"policy\.shortest \(2\) is above policy\.longest \(1\.3\)"),
        ("policy: {kl_target: 2.0, kl_gain: 5}", r"policy\.kl_gain: Input should be less than 5"),
        ("policy: {kl_target: 2.0, kl_coefficient: 0}", r"policy\.kl_target steers policy\.kl_coefficient"),
        ("policy: {algorithm: dpo, kl_coefficient: 0}", r"policy\.kl_coefficient is the beta .* set it above 0"),
        ("policy: {temperature: 1.0e-40}", r"policy\.temperature: Input should be greater than or equal to 0\.01"),
        ("teacher: {temperature: 0}", r"teacher\.temperature: Input should be greater than or equal to 0\.01"),
        ("- policy", "must hold sections"),
        ("home: /tmp", "RLPF_HOME"),
        ("policy: {", "cannot be read"),
        ("policy: {kl_target: 2.0}\nreward: {epochs: 1}\npolicy: {steps: 3}", r"'policy' stands there twice.*line 3"),
        ("policy: {steps: 3, steps: 5}", "'steps' stands there twice"),
        ("policy: {steps: true}", r"policy\.steps: Value error, true does not fit"),
        ("policy: {kl_target: off}", r"policy\.kl_target: Value error, false does not fit \(YAML takes yes"),
        ("policy: {steps: 2024-13-45}", "cannot be read: month must be in"),
    ],
)
def test_what_does_not_fit_is_named(file: Path, tmp_path: Path, content: str, says: str) -> None:
    file.write_text(content)
    with pytest.raises(UserError, match=says):
        load_settings("demo", (), tmp_path)


def test_a_missing_file_is_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"settings\.yaml, which cannot be read"):
        load_settings("demo", (), tmp_path)


@pytest.mark.parametrize("name", ["what?", "50%20off", "100%"])
def test_a_home_with_a_name_that_urls_read_otherwise_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLPF_HOME", str(tmp_path / name))
    with pytest.raises(UserError, match=re.escape(f"{name}: ? and % in a folder's name")):
        load_settings("tiny", ())
