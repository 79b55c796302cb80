import hashlib

import numpy as np

from rlpf_pipeline.market.assignment import assign


def test_arm_is_the_hash_of_salt_and_id_modulo_arms():
    number = int(hashlib.sha256(b"spring:adv-000042").hexdigest()[:16], 16)
    assert assign(["adv-000042"], "spring").tolist() == [("control", "treatment")[number % 2]]


def test_assignment_is_uniform_and_independent_between_salts():
    ids = [f"adv-{i}" for i in range(20_000)]
    first, second = assign(ids, "one") == "treatment", assign(ids, "two") == "treatment"
    four_standard_errors = 4 * np.sqrt(0.25 / len(ids))
    assert abs(first.mean() - 0.5) < four_standard_errors
    assert abs((first == second).mean() - 0.5) < four_standard_errors


def test_several_arms_share_equally():
    arms, counts = np.unique(assign([str(i) for i in range(9000)], "salt", ("a", "b", "c")), return_counts=True)
    assert arms.tolist() == ["a", "b", "c"]
    assert np.abs(counts - 3000).max() < 4 * np.sqrt(9000 * (1 / 3) * (2 / 3))
