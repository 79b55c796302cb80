import pytest

from rlpf_pipeline.defs.summary import figure, percent, preferred


@pytest.mark.parametrize(
    ("difference", "error", "said"),
    [
        (0.3, 0.1, "The judge prefers AdLlama to imitation v2 (difference +0.3, standard error 0.1)."),
        (0.1, 0.1, "prefers AdLlama to imitation v2 (difference +0.1, standard error 0.1, within two standard errors"),
        (-0.3, 0.1, "does NOT prefer AdLlama"),
        (0.3, None, "(difference +0.3, of a single original, so nobody knows how sure)."),
    ],
)
def test_a_preference_is_said_with_how_sure_it_is(difference: float, error: float | None, said: str) -> None:
    metrics = {"reward_difference": difference, "reward_difference_standard_error": error}
    assert said in preferred("The judge", metrics, "reward")


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert (figure(-0.0004), percent(-0.000004)) == ("0.000", "0.000 %")
    assert (figure(-0.0006), percent(-0.000006)) == ("-0.001", "-0.001 %")
