from pathlib import Path

import pytest
import torch
from peft import PeftModel

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.models.adapters import attach_lora
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.models.tiny import CHAT_TEMPLATE
from rlpf_pipeline.settings import BaseModelSettings, ImitationSettings
from rlpf_pipeline.training.imitation_trainer import IGNORED, groups_of, train_imitation
from rlpf_pipeline.training.prompts import messages, prompt_ids
from rlpf_pipeline.training.reporter import Reporter
from rlpf_pipeline_tests.conftest import THINKS_ALOUD, TINY

EXAMPLES = [
    ("Fresh bread.", "Bread, fresh every day."),
    ("Buy your bread now at the bakery on our street.", "Bread."),
    ("Never miss a day.", "A day here, every day, is a day with fresh bread and taste."),
]


def fresh(cache: Path, base: BaseModelSettings = TINY) -> PeftModel:
    torch.manual_seed(0)
    return attach_lora(load_causal_lm(base, cache), ImitationSettings().lora)


def train(
    cache: Path, template: str = CHAT_TEMPLATE, model: PeftModel | None = None, **settings: object
) -> dict[str, float]:
    tokenizer = load_tokenizer(TINY, cache)
    tokenizer.chat_template = template
    own = ImitationSettings.model_validate({"batch_size": 3, **settings})
    return train_imitation(model or fresh(cache), tokenizer, EXAMPLES, own, 1, Reporter("test"))


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, THINKS_ALOUD])
def test_examples_that_share_a_batch_count_as_if_each_stood_alone(cache: Path, template: str) -> None:
    """The loss of a packed batch is the mean over the rewrites' tokens up to their end marks, behind the prompt that a
    policy is given, each example encoded by itself."""
    model, tokenizer = load_causal_lm(TINY, cache), load_tokenizer(TINY, cache)
    tokenizer.chat_template = template
    losses = []
    for original, rewrite in EXAMPLES:
        answer = [{"role": "assistant", "content": rewrite}]
        ids = tokenizer(tokenizer.apply_chat_template(messages(original) + answer, tokenize=False))["input_ids"]
        start = len(prompt_ids(tokenizer, original))
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        end = ids.index(tokenizer.eos_token_id, start)
        assert end == len(ids) - 2  # the template's line break is behind it
        losses += [-float(log_probs[place - 1, ids[place]]) for place in range(start, end + 1)]
    assert train(cache, template, learning_rate=0.0)["train_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_it_learns_its_examples(cache: Path) -> None:
    once, often = (train(cache, epochs=epochs, learning_rate=1e-2)["train_loss"] for epochs in (1, 30))
    assert often < once - 0.5


def test_steps_too_small_for_bfloat16_add_up(cache: Path) -> None:
    """Its weights are some 4e-3 of themselves apart: steps of 1e-4 on those of .02 and more were lost."""
    model = fresh(cache, BaseModelSettings(name="tiny", dtype="bfloat16"))
    weights = [parameter for name, parameter in model.named_parameters() if "lora_A" in name]
    before = [weight.detach().clone() for weight in weights]
    train(cache, model=model, epochs=60, learning_rate=1e-4)
    moved = [(weight - own)[own.abs() > 0.06] != 0 for weight, own in zip(weights, before, strict=True)]
    assert torch.cat(moved).float().mean() > 0.5


def test_a_loss_that_is_not_finite_ends_the_training(cache: Path) -> None:
    """Weights as large as float32 holds: their products are infinite."""
    with pytest.raises(UserError, match=r"The loss of step \d+ is not finite\. Lower imitation\.learning_rate"):
        train(cache, epochs=20, learning_rate=1e38)


def test_a_last_step_that_is_too_large_is_seen(cache: Path) -> None:
    """Two steps, the first of which warms up at a rate of 0: no loss is left that could tell."""
    with pytest.raises(UserError, match=r"Weights after the last step are not finite\. Lower imitation"):
        train(cache, epochs=2, learning_rate=1e39)


def test_no_example_is_a_mistake(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.EXAMPLES", [])
    with pytest.raises(UserError, match="No example is left"):
        train(cache)


def test_an_example_longer_than_the_base_reads_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "EXAMPLES", [*EXAMPLES, ("Long.", "bread " * 600)])
    with pytest.raises(UserError, match=r"reads 512 tokens, and an example has \d+: 'Long\.', .*base\.name"):
        train(cache)


def test_a_batch_is_taken_apart_into_prompts_and_rewrites() -> None:
    """The line break (4) behind the end mark (3) is left out, also where the prompt holds an end mark."""
    ids = torch.tensor([[3, 6, 7, 3, 4], [5, 9, 0, 0, 0]])
    labels = torch.tensor([[IGNORED, IGNORED, 7, 3, 4], [IGNORED, 9, IGNORED, IGNORED, IGNORED]])
    first, second = groups_of(3, ids, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]), labels)
    assert (first.prefix, first.texts) == ([3, 6], [[7, 3]])
    assert (second.prefix, second.texts) == ([5], [[9]])


def test_a_batch_that_the_ranks_cannot_share_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="batch_size is 3, which 2 processes cannot share"):
        train(cache)
