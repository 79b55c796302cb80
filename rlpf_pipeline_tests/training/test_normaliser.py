import numpy as np
import pytest

from rlpf_pipeline.training.normaliser import RunningMoments


def test_batches_merge_to_the_moments_of_all_values() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 1000)
    moments = RunningMoments()
    for batch in np.split(values, [1, 10, 400]):
        moments = moments.including(batch)
    assert moments.count == 1000
    assert moments.mean == pytest.approx(values.mean())
    assert moments.squares / moments.count == pytest.approx(values.var())
    np.testing.assert_allclose(moments.normalised(values), (values - values.mean()) / values.std(), rtol=1e-6)


def test_rewards_that_do_not_vary_are_nothing() -> None:
    assert RunningMoments().including(np.full(3, 7.0)).normalised(np.full(3, 7.0)).tolist() == [0.0, 0.0, 0.0]
