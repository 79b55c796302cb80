import math

import numpy as np
import pytest

from rlpf_pipeline.evaluation.selection import Picks, ad_weights, half_test, oracle, picks, selection_lift, top1
from rlpf_pipeline_tests.evaluation.splits import split_of

# CTRs: ad 0 has .01, .03 and .02; ad 1 has .02 twice
TWO_ADS = split_of([("a", 1000, 10), ("b", 1000, 30), ("c", 1000, 20)], [("d", 500, 10), ("e", 500, 10)])


def test_top1_asks_for_the_best_observed_text() -> None:
    assert top1(TWO_ADS, np.array([0.0, 1, 0, 1, 0])).tolist() == [1, 1]
    assert top1(TWO_ADS, np.array([0.0, 1, 2, 1, 0])).tolist() == [0, 1]


def test_a_pick_among_equal_scores_is_even() -> None:
    # b (best) and c are picked with one half each; of all three, b with one third, which is chance
    assert top1(TWO_ADS, np.array([0.0, 2, 2, 0, 0])).tolist() == [0.5, 1]
    assert top1(TWO_ADS, np.zeros(5)).tolist() == pytest.approx([1 / 3, 1])
    assert picks(TWO_ADS, np.array([0.0, 2, 2, 0, 0])).picked.tolist() == pytest.approx([0.025, 0.02])


def test_ads_weigh_their_impressions_where_arms_are_even() -> None:
    # 3 arms of 1,000 and 2 arms of 500; with arms of 100 and 900 the weight is 4 / (1/100 + 1/900) = 360, not 1,000
    assert ad_weights(TWO_ADS).tolist() == pytest.approx([3000, 1000])
    assert ad_weights(split_of([("a", 100, 1), ("b", 900, 9)])).tolist() == pytest.approx([360])


def test_selection_lift_by_hand() -> None:
    # picks b (.03) and d (.02); mean arms .02 and .02; weights 3,000 and 1,000
    chosen = picks(TWO_ADS, np.array([0.0, 1, 0, 1, 0]))
    lift = selection_lift(chosen, ad_weights(TWO_ADS), TWO_ADS.clusters)
    assert lift is not None
    assert lift.lift == pytest.approx((3000 * 0.03 + 1000 * 0.02) / (3000 * 0.02 + 1000 * 0.02) - 1)
    # a resample holds one ad twice or both: lifts 50 %, 37.5 % and 0, with probabilities 1/4, 1/2, 1/4
    assert (lift.low, lift.high) == pytest.approx((0.0, 0.5))


def test_a_scorer_that_knows_nothing_lifts_nothing() -> None:
    lift = selection_lift(picks(TWO_ADS, np.zeros(5)), ad_weights(TWO_ADS), TWO_ADS.clusters)
    assert lift == pytest.approx((0.0, 0.0, 0.0))


def test_more_impressions_do_not_make_a_better_pick() -> None:
    split = split_of([("a", 9000, 90), ("b", 1000, 10)])
    lift = selection_lift(picks(split, np.array([1.0, 0])), ad_weights(split), split.clusters)
    assert lift == (0.0, None, None)


def test_a_cluster_is_drawn_as_a_whole() -> None:
    # the same two ads in one cluster: nothing to resample
    chosen = picks(TWO_ADS, np.array([0.0, 1, 0, 1, 0]))
    lift = selection_lift(chosen, ad_weights(TWO_ADS), np.array([7, 7]))
    assert lift is not None
    assert lift.low is None


def test_no_click_at_all_gives_no_lift() -> None:
    assert selection_lift(Picks(np.zeros(2), np.zeros(2)), np.ones(2), np.arange(2)) is None


def test_the_interval_covers_as_often_as_it_says() -> None:
    # 300 worlds of 60 ads: arms of .02 and .03, the pick is the better one in 60 % of the ads; true lift (.6*.03 +
    # .4*.02) / .025 - 1 = 4 %. Of 300 intervals 95 % cover, give or take 3 standard errors of .0126.
    covered = 0
    for world in range(300):
        rng = np.random.default_rng(world)
        low, high = rng.binomial(3000, 0.02, 60) / 3000, rng.binomial(3000, 0.03, 60) / 3000
        chosen = Picks(np.where(rng.random(60) < 0.6, high, low), (low + high) / 2)
        lift = selection_lift(chosen, np.full(60, 6000.0), np.arange(60), seed=world)
        assert lift is not None
        assert lift.low is not None
        assert lift.high is not None
        covered += lift.low <= 0.04 <= lift.high
    assert covered / 300 == pytest.approx(0.95, abs=0.038)


def test_the_oracle_of_a_certain_test_is_the_best_arm() -> None:
    # a million impressions each: the posterior is as good as the observed rates
    split = split_of([("a", 10**6, 10_000), ("b", 10**6, 30_000)])
    knowing = oracle(split)
    # the prior, worth 1,000 impressions at .02, draws both a thousandth of the way to it
    assert knowing.picks.picked[0] == pytest.approx(0.03, abs=1e-4)
    assert knowing.picks.chance[0] == pytest.approx(0.02, abs=1e-4)
    assert knowing.top1.tolist() == [1.0]


def test_the_oracle_does_not_take_luck_for_merit() -> None:
    # two arms of equal clicks: the true best is better by the posterior's spread alone. For two independent normals of
    # standard deviation s the expected maximum is s / sqrt(pi) above the mean; s of a Beta of 10,000 + 1,000 at .02
    split = split_of(*[[(f"a{i}", 10_000, 200), (f"b{i}", 10_000, 200)] for i in range(200)])
    spread = math.sqrt(0.02 * 0.98 / 11_001)
    found = oracle(split).picks
    assert (found.picked - found.chance).mean() == pytest.approx(spread / math.sqrt(math.pi), rel=0.02)


def test_half_of_a_test_is_judged_on_the_other_half() -> None:
    # arms that differ by luck alone: what wins one half does not win the other, so the expected lift is none
    rng = np.random.default_rng(3)
    ads = [[(f"{i}a", 2000, c), (f"{i}b", 2000, d)] for i, (c, d) in enumerate(rng.binomial(2000, 0.02, (1500, 2)))]
    split = split_of(*ads)
    lift = selection_lift(half_test(split), ad_weights(split), split.clusters)
    assert lift is not None
    assert lift.lift == pytest.approx(0.0, abs=0.01)
    # while the observed winner of the whole test would claim E|difference| / 2 = sqrt(2 / pi) s, with s the standard
    # deviation of half the difference, sqrt(.02 * .98 / 2000 / 2): about 8.8 % of .02
    claimed = selection_lift(picks(split, split.texts.ctr.to_numpy()), ad_weights(split), split.clusters)
    assert claimed is not None
    assert claimed.lift == pytest.approx(math.sqrt(2 / math.pi * 0.02 * 0.98 / 4000) / 0.02, abs=0.01)


def test_half_of_a_certain_test_finds_the_best_arm() -> None:
    split = split_of([("a", 10**6, 10_000), ("b", 10**6, 30_000)])
    assert half_test(split).picked[0] == pytest.approx(0.03, abs=1e-4)


def test_arms_of_billions_of_impressions_are_halved_too() -> None:
    halved = half_test(split_of([("a", 3 * 10**9, 6 * 10**7), ("b", 10**12, 9 * 10**11)]))
    assert halved.picked[0] == pytest.approx(0.9, abs=1e-4)
    assert halved.chance[0] == pytest.approx((0.02 + 0.9) / 2, abs=1e-4)
