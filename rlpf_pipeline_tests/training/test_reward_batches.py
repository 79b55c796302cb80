"""Labels of pairs and texts under each setting, by hand."""

import math

import numpy as np
import pytest

from rlpf_pipeline.settings import RewardSettings
from rlpf_pipeline.training.reward_batches import pair_labels, text_labels
from rlpf_pipeline_tests.training.reward_ads import make_ad

AD = make_ad("a", ("Bread.", "Buy bread now.", "Fresh bread."), [0.8, 0.5, 0.3])._replace(
    weight=np.array([1.0, 2.0, 3.0]), p_value=np.array([0.01, 0.9, 0.05])
)


@pytest.mark.parametrize(
    ("settings", "p", "weight"),
    [
        ({}, [0.8, 0.5, 0.3], [1, 2, 3]),
        ({"hard_labels": True}, [1, 0.5, 0], [1, 2, 3]),
        ({"uniform_weights": True}, [0.8, 0.5, 0.3], [1, 1, 1]),
        ({"max_p_value": 0.05}, [0.8, 0.5, 0.3], [1, 0, 3]),
        ({"max_p_value": 0.04, "uniform_weights": True}, [0.8, 0.5, 0.3], [1, 0, 0]),
    ],
)
def test_labels_and_weights_of_pairs(settings: dict[str, object], p: list[float], weight: list[float]) -> None:
    found = pair_labels([AD], RewardSettings(**settings))  # type: ignore[arg-type]
    assert [own.tolist() for own in found] == [p, weight]


def test_labels_of_texts_are_log_ctrs_about_their_mean_by_impressions() -> None:
    texts = make_ad("a", ("Bread.", "Buy bread now."), [0.5])._replace(impressions=(99, 299), clicks=(0, 4))
    log_ctr, exposure = text_labels([texts])
    # (0 + 1/2) / (99 + 1) = .005 and (4 + 1/2) / (299 + 1) = .015, three times as high
    assert log_ctr.tolist() == pytest.approx([-299 / 398 * math.log(3), 99 / 398 * math.log(3)])
    assert exposure.tolist() == [99, 299]


def test_an_impression_weighs_alike_in_every_split() -> None:
    seldom, often = (AD._replace(impressions=(shown,) * 3) for shown in (100, 10_000))
    assert text_labels([often])[1][0] / text_labels([seldom])[1][0] == 100
