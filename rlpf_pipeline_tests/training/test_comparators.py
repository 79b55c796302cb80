"""RLOO, GRPO and DPO by trl's trainers, on the tiny model."""

import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import MergedCopy
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.settings import BaseModelSettings, PolicySettings
from rlpf_pipeline.training.comparators import preferred_rewrites, train_on_pairs, train_on_samples
from rlpf_pipeline.training.prompts import Prompt, make_prompt
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline_tests.conftest import TINY
from rlpf_pipeline_tests.training.reward_ads import make_ad
from rlpf_pipeline_tests.training.tiny_ppo import Likes, likes_letter

QUIET = Reporter("test")
SHORT = {"steps": 2, "prompts_per_step": 2, "samples_per_prompt": 4, "max_new_tokens": 4}
BANDIT = {
    "steps": 3,
    "prompts_per_step": 4,
    "samples_per_prompt": 32,
    "max_new_tokens": 1,
    "temperature": 0.1,
    "learning_rate": 1e-3,
    "epochs": 4,
    "length": "none",
    "missing_eos_penalty": 0.0,
}
ORIGINALS = ("Fresh bread", "Every day", "Visit the bookshop", "Book your class")


def prompts_of(cache: Path) -> list[Prompt]:
    tokenizer = load_tokenizer(TINY, cache)
    return [make_prompt(tokenizer, make_ad(text, (text, "other"), [0.5])) for text in ORIGINALS]


def on_samples(  # type: ignore[no-untyped-def]
    cache: Path, algorithm: str, reward: Likes, base: BaseModelSettings = TINY, **settings: object
):
    torch.manual_seed(0)
    chosen = PolicySettings.model_validate({"algorithm": algorithm} | settings)
    parts = load_causal_lm(base, cache), load_tokenizer(TINY, cache), reward, prompts_of(cache)
    return train_on_samples(algorithm, *parts, chosen, 1, QUIET)  # type: ignore[arg-type]


def first_token(model: PreTrainedModel, prompts: list[Prompt]) -> torch.Tensor:
    """Distribution of the token behind each prompt, at the temperature of the bandit: (prompts, vocabulary)."""
    with torch.no_grad():
        logits = [model(torch.tensor([prompt.ids]).to(model.device)).logits[0, -1] for prompt in prompts]
    return torch.softmax(torch.stack(logits).cpu() / BANDIT["temperature"], -1)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_a_token_that_is_rewarded_becomes_likely(cache: Path, algorithm: str) -> None:
    prompts, (token,) = prompts_of(cache), load_tokenizer(TINY, cache)(" now")["input_ids"]
    before = first_token(load_causal_lm(TINY, cache), prompts)[:, token].mean()
    reward = Likes(lambda text: float(text == "now"))
    policy, history = on_samples(cache, algorithm, reward, kl_coefficient=0.0, **BANDIT)
    after = first_token(MergedCopy(policy).model, prompts)[:, token].mean()
    assert before < 0.05
    assert after > 0.9
    assert history[-1]["reward"] > history[0]["reward"]


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_a_step_says_what_ppo_says_of_its_samples(cache: Path, algorithm: str) -> None:
    settings = SHORT | {"minibatches": 2, "epochs": 2, "length": "linear", "length_penalty": 0.5}
    _, history = on_samples(cache, algorithm, likes_letter("e"), **settings)
    assert [row["step"] for row in history] == [1, 2]
    for row in history:
        assert row["term_gain"] == pytest.approx(row["reward"])
        assert row["term_length"] == pytest.approx(-0.5 * (row["tokens"] - row["finished"]))
        assert row["term_missing_eos"] == pytest.approx(-(1 - row["finished"]))
        assert 1 <= row["tokens"] <= 4
    assert history[1]["kl"] > 0 if algorithm == "grpo" else history[0]["kl"] == pytest.approx(0, abs=1e-6)


def test_weights_that_are_not_finite_are_no_policy(cache: Path) -> None:
    with pytest.raises(UserError, match="learning_rate"):
        on_samples(cache, "rloo", likes_letter("e"), **(SHORT | {"steps": 1, "learning_rate": 1e38, "epochs": 3}))


def test_the_prompt_is_that_of_ppo(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """trl renders messages by itself: it must end up with our token ids."""
    seen: list[list[int]] = []
    generate = LlamaForCausalLM.generate

    def spy(self, input_ids, attention_mask, **options):  # type: ignore[no-untyped-def]
        seen.extend(ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True))
        return generate(self, input_ids=input_ids, attention_mask=attention_mask, **options)

    monkeypatch.setattr(LlamaForCausalLM, "generate", spy)
    on_samples(cache, "rloo", likes_letter("e"), **(SHORT | {"steps": 1, "prompts_per_step": 4}))
    assert sorted(seen) == sorted(prompt.ids for prompt in prompts_of(cache) for _ in range(4))


def test_a_base_in_bfloat16_gets_its_adapter_in_bfloat16(cache: Path) -> None:
    base = BaseModelSettings(name="tiny", dtype="bfloat16")
    policy, _ = on_samples(cache, "rloo", likes_letter("e"), base, **(SHORT | {"steps": 1}))
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.bfloat16}
    adapter = [parameter for name, parameter in policy.named_parameters() if "lora_B" in name]
    assert max(float(parameter.abs().max()) for parameter in adapter) > 0


def test_dpo_learns_which_text_is_clicked(cache: Path) -> None:
    torch.manual_seed(0)
    settings = PolicySettings.model_validate(
        {"algorithm": "dpo", "steps": 6, "prompts_per_step": 4, "samples_per_prompt": 2, "learning_rate": 5e-3}
    )
    # pairs in order: (0,1) (0,2) (1,2); the first text is the original
    ads = [make_ad(text, (text, "now", "day"), [0.9, 0.2, 0.8]) for text in ORIGINALS]
    policy, history = train_on_pairs(load_causal_lm(TINY, cache), load_tokenizer(TINY, cache), ads, settings, 1, QUIET)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert history[-1]["accuracy"] == 1
    assert history[-1]["loss"] < history[0]["loss"]
    model, (now, day) = MergedCopy(policy).model, load_tokenizer(TINY, cache)(["now", "day"])["input_ids"]
    start = load_causal_lm(TINY, cache)
    for prompt in prompts_of(cache):
        gap, before = (first_token(m, [prompt]).log()[0, [now[0], day[0]]] for m in (model, start))
        assert gap[0] - gap[1] > before[0] - before[1]


def test_dpo_prefers_what_is_clicked_and_answers_with_no_original() -> None:
    ad = make_ad("a", ("Bread", "bread", "Fresh", "Now", "Day"), [0.9, 0.9, 0.9, 0.9, 0.8, 0.3, 0.6, 0.7, 0.5, 0.1])
    # pairs in order: (0,1) (0,2) (0,3) (0,4) (1,2) (1,3) (1,4) (2,3) (2,4) (3,4); texts 0 and 1 are the original
    assert preferred_rewrites([ad]) == [("Bread", "Fresh", "Now"), ("Bread", "Day", "Now")]


def test_dpo_without_a_pair_says_what_it_needs(cache: Path) -> None:
    parts = load_causal_lm(TINY, cache), load_tokenizer(TINY, cache), [make_ad("a", ("Bread", "Fresh"), [0.9])]
    with pytest.raises(UserError, match="ads of three texts or more"):
        train_on_pairs(*parts, PolicySettings(algorithm="dpo"), 1, QUIET)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kl_target": 1.0, "clip_rewards": 2.0}, r"policy\.kl_target, policy\.clip_rewards is PPO's alone"),
        ({"samples_per_prompt": 1}, "compares the texts of a prompt"),
        ({"prompts_per_step": 3, "samples_per_prompt": 3, "minibatches": 2}, "cannot be divided evenly"),
    ],
)
def test_settings_that_make_no_comparison_are_refused(cache: Path, settings: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        on_samples(cache, "rloo", likes_letter("e"), **settings)
