import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from rlpf_pipeline.contracts import IMITATION_REWRITES
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.evaluation.imitation import (
    comparison,
    faithfulness,
    instructions_kept,
    perplexity,
    unseen,
    write_rewrites,
)
from rlpf_pipeline.models.base import load_causal_lm, load_tokenizer
from rlpf_pipeline.settings import TeacherSettings
from rlpf_pipeline.training.prompts import prompt_ids
from rlpf_pipeline.training.teacher import QUESTION, SHORTEN, local_teacher, request
from rlpf_pipeline_tests.conftest import TINY

EXAMPLES = pd.DataFrame({"original": ["Fresh bread.", "Buy now."], "rewrite": ["Bread every day here.", "Buy."]})


def test_a_rewrite_that_is_learned_for_another_original_is_not_held_out() -> None:
    examples = pd.DataFrame(
        {"original": ["a", "a", "b"], "rewrite": ["x", "y", "x"], "held_out": [True, True, False], "author": "human"}
    )
    assert unseen(examples).rewrite.tolist() == ["y"]


def test_perplexity_is_that_of_the_rewrites_tokens_one_by_one(cache: Path) -> None:
    model, tokenizer = load_causal_lm(TINY, cache), load_tokenizer(TINY, cache)
    losses = []
    for original, rewrite in zip(EXAMPLES.original, EXAMPLES.rewrite, strict=True):
        prefix = prompt_ids(tokenizer, original)
        ids = [*prefix, *tokenizer(rewrite, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        losses += [
            float(torch.nn.functional.cross_entropy(logits[at - 1], torch.tensor(ids[at])))
            for at in range(len(prefix), len(ids))
        ]
    expected = math.exp(sum(losses) / len(losses))
    assert perplexity(model, tokenizer, EXAMPLES) == pytest.approx(expected, rel=1e-4)
    assert perplexity(model, tokenizer, EXAMPLES[:0]) is None


def test_a_ruined_model_has_an_infinite_perplexity(cache: Path) -> None:
    """Its likeliest token is ahead by thousands of nats; exp of 710 is beyond a float."""
    model, tokenizer = load_causal_lm(TINY, cache), load_tokenizer(TINY, cache)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e6)
    assert perplexity(model, tokenizer, EXAMPLES) == math.inf
    shown = comparison({"v1": {"perplexity_human": math.inf}, "v2": {"perplexity_human": 1.5e300}}, 1, {"human": 2})
    assert "| imitation v1 | – | inf |" in shown
    assert "| imitation v2 | – | 1.5e+300 |" in shown


def rewrites(*rows: tuple[str, str | None, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["original", "instruction", "rewrite"]).assign(finished=True)


def test_shares_are_counted_as_their_names_say() -> None:
    bread = "Fresh bread from our bakery."
    table = rewrites(
        (bread, None, "FRESH BREAD FROM OUR BAKERY."),
        (bread, None, "Fresh bread, 2 for 1."),
        (bread, None, "Fresh bread in Dayton, 50 cents."),
        (bread, None, "Our bakery has fresh bread."),
    )
    table.loc[3, "finished"] = False
    assert faithfulness(table) == {"copies": 0.25, "new_numbers": 0.5, "new_names": 0.25, "finished": 0.75}


def test_instructions_that_can_be_counted_are() -> None:
    asked = rewrites(
        ("Buy our bread", QUESTION, "Have you tried our bread? Buy some."),
        ("Buy our bread", QUESTION, "Our bread. Buy it."),
        ("Buy our bread", SHORTEN, "Buy bread"),
        ("Buy our bread", SHORTEN, "Bread for you"),
        ("Buy our bread", SHORTEN, ""),
        ("Buy our bread", "Make this ad clearer", "Bread?"),
    )
    assert instructions_kept(asked) == {"question_kept": 0.5, "shortened": pytest.approx(1 / 3)}
    assert instructions_kept(asked[5:]) == {"question_kept": None, "shortened": None}


def test_a_model_is_asked_as_deployed_and_under_both_instructions(cache: Path) -> None:
    model, tokenizer = load_causal_lm(TINY, cache), load_tokenizer(TINY, cache)
    done: list[int] = []
    table = write_rewrites(
        "v1", model, tokenizer, ["Bread.", "Cake."], TeacherSettings(max_new_tokens=3), 5, done.append
    )
    assert tuple(table.columns) == IMITATION_REWRITES.column_names
    assert table.instruction.where(table.instruction.notna(), None).tolist() == [
        None,
        None,
        QUESTION,
        QUESTION,
        SHORTEN,
        SHORTEN,
    ]
    assert table.original.tolist() == ["Bread.", "Cake."] * 3
    assert done == [6]


def test_a_teacher_and_a_student_without_room_for_an_answer_are_told(cache: Path) -> None:
    model, tokenizer = load_causal_lm(TINY, cache), load_tokenizer(TINY, cache)
    settings, long = TeacherSettings(max_new_tokens=12), "bread " * 600
    with pytest.raises(UserError, match=r"reads 512 tokens.*Lower teacher\.max_new_tokens"):
        local_teacher(model, tokenizer, settings, 0, lambda done, total: None)([request(SHORTEN, long)])
    with pytest.raises(UserError, match=r"reads 512 tokens.*Lower teacher\.max_new_tokens"):
        write_rewrites("v1", model, tokenizer, ["Bread.", long], settings, 0, lambda done: None)


def test_the_table_shows_what_could_not_be_measured_as_a_dash() -> None:
    page = comparison({"v1": {"perplexity_human": 3.14159, "copies": None}}, 2, {"synthetic": 0, "human": 4})
    row = page.splitlines()[2]
    assert row.startswith("| imitation v1 | – | 3.14 | – |")
    assert "0 synthetic and 4 human rewrites" in page
