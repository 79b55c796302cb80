import numpy as np

from rlpf_pipeline.market.draws import draws_from


def test_draws_are_those_of_a_generator_which_then_goes_on_behind_them():
    ours, numpys = np.random.default_rng(3), np.random.default_rng(3)
    # The largest limits reject nearly half of all tries; 1 takes no bits.
    limits = [*range(1, 60), 2**31 + 1, 2**31 + 2, 2**32 - 1] * 400
    with draws_from(ours) as draws:
        drawn = [(draws.below(limit), draws.fraction() if limit % 3 else None) for limit in limits]
    assert drawn == [(int(numpys.integers(limit)), numpys.random() if limit % 3 else None) for limit in limits]
    assert ours.random(5).tolist() == numpys.random(5).tolist()


def test_a_choice_is_one_of_the_options():
    with draws_from(np.random.default_rng(3)) as draws:
        assert {draws.choice("abc") for _ in range(100)} == set("abc")
        assert draws.choice(["only"]) == "only"
