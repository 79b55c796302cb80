from pathlib import Path

import pandas as pd
import pytest
import torch

from rlpf_pipeline.evaluation.policy import paired_difference, summarise, text_log_probs
from rlpf_pipeline.models.base import load_causal_lm
from rlpf_pipeline.models.packing import Group
from rlpf_pipeline_tests.conftest import TINY


def test_text_log_probs_are_those_of_the_texts_on_their_own(cache: Path) -> None:
    model = load_causal_lm(TINY, cache)
    groups = [Group([1, 5, 6], [[7, 8, 2], [9, 2]]), Group([1, 4], [[3, 2]])]
    expected = []
    for group in groups:
        for text in group.texts:
            ids = torch.tensor([[*group.prefix, *text]])
            log_probs = torch.log_softmax(model(ids).logits[0] / 0.7, dim=-1)
            at = len(group.prefix) - 1
            expected.append(sum(log_probs[at + i, token].item() for i, token in enumerate(text)))
    assert text_log_probs(model, groups, 0.7, pad_id=0).tolist() == pytest.approx(expected, abs=1e-4)


def test_policies_are_compared_within_originals() -> None:
    rows = [("x", "imitation_v2", 1.0), ("x", "adllama", 2.0), ("y", "imitation_v2", 5.0), ("y", "adllama", 8.0)]
    table = pd.DataFrame(rows, columns=["ad_id", "policy", "reward"])
    # differences 1 and 3: mean 2, standard deviation sqrt(2), over two originals
    assert paired_difference(table, "reward") == pytest.approx((2.0, 1.0))
    assert paired_difference(table[:2], "reward") == (1.0, None)


def test_a_policy_that_has_one_formula_for_all_originals_is_found_out() -> None:
    texts = ["You can", "you want", "Bread", "", "You, too"]
    table = pd.DataFrame({"ad_id": list("xyxyz"), "text": texts, "original": "Bread"}).assign(
        reward=1.0, evaluation_reward=1.0, reward_spread=0.0, tokens=3, finished=True, log_ratio=0.5
    )
    summary = summarise(table)
    assert summary["same_first_word"] == 0.4  # two of five: "you,", with its comma, is another word
    # beginning with "you" of three texts for other originals two, twice, and of four two; two texts share nothing
    assert summary["shared_wording"] == pytest.approx((2 / 3 + 2 / 3 + 2 / 4) / 5)
    assert summary["copies"] == 0.2
    assert summary["distinct"] == 1.0
