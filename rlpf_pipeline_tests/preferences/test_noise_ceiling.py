import numpy as np
import pytest

from rlpf_pipeline.preferences.noise_ceiling import noise_ceiling


def test_is_the_mean_of_the_favoured_side():
    assert noise_ceiling([0.9, 0.2, 0.5]) == pytest.approx((0.9 + 0.8 + 0.5) / 3)


def test_is_the_accuracy_of_the_true_ranking_where_the_prior_is_right():
    # CTRs drawn from the prior, clicks from the CTRs: the true order must agree with the observed winner as foretold.
    random = np.random.default_rng(0)
    impressions, a, b = 2000, 20.0, 980.0
    ctr = random.beta(a, b, size=(20_000, 2))
    clicks = random.binomial(impressions, ctr)
    decided = clicks[:, 0] != clicks[:, 1]
    agreement = np.mean(((ctr[:, 0] > ctr[:, 1]) == (clicks[:, 0] > clicks[:, 1]))[decided])
    posterior = random.beta(a + clicks[..., None], b + impressions - clicks[..., None], size=(20_000, 2, 200))
    p = np.mean(posterior[:, 0] > posterior[:, 1], axis=1)
    assert noise_ceiling(p[decided]) == pytest.approx(agreement, abs=0.01)


@pytest.mark.parametrize("p", [[], [1.1], [float("nan")]])
def test_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="probabilities"):
        noise_ceiling(p)
