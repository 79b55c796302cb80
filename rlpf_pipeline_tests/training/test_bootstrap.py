import math

import numpy as np

from rlpf_pipeline.training.bootstrap import bootstrap_counts

IDS = [f"ad{i}" for i in range(20_000)]


def test_counts_are_binomial_of_mean_one() -> None:
    counts = bootstrap_counts(IDS, heads=5, seed=1)
    for k in range(4):
        share = math.comb(5, k) * 0.2**k * 0.8 ** (5 - k)
        # five standard errors of a share over 100,000 draws
        assert abs(np.mean(counts == k) - share) < 5 * math.sqrt(share * (1 - share) / counts.size)


def test_all_heads_together_see_every_ad_equally_often() -> None:
    assert (bootstrap_counts(IDS, heads=5, seed=1).sum(axis=1) == 5).all()


def test_heads_are_dealt_to_alike() -> None:
    # of a multinomial draw: two heads' counts of an ad correlate by -1 / (heads - 1)
    correlations = np.corrcoef(bootstrap_counts(IDS, heads=3, seed=1).T)
    expected = np.where(np.eye(3), 1.0, -0.5)
    assert np.abs(correlations - expected).max() < 5 / math.sqrt(len(IDS))


def test_an_ad_draws_the_same_whatever_stands_beside_it() -> None:
    together, alone = bootstrap_counts(IDS[:3], 5, seed=1), bootstrap_counts(IDS[2:3], 5, seed=1)
    assert together[2].tolist() == alone[0].tolist()
    assert not np.array_equal(bootstrap_counts(IDS[:9], 5, seed=1), bootstrap_counts(IDS[:9], 5, seed=2))


def test_a_single_head_sees_every_ad_once() -> None:
    assert bootstrap_counts(IDS[:2], heads=1, seed=1).tolist() == [[1.0], [1.0]]
