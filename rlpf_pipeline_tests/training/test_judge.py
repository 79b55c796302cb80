import numpy as np
import pytest

from rlpf_pipeline.settings import PolicySettings
from rlpf_pipeline.training.judge import Judges, best_judgement, has_peaked, judgement
from rlpf_pipeline.training.rewards import Samples


def curve(*points: tuple[float, float], penalties: float = 0.0) -> list[dict[str, float]]:
    return [{"evaluation_reward": reward, "penalties": penalties, "kl": kl} for reward, kl in points]


def test_the_best_is_the_highest_evaluation_reward_within_the_budget() -> None:
    judged = curve((0.0, 0.0), (0.3, 1.0), (0.9, 7.0), (0.2, 2.0))
    assert best_judgement(judged, kl_budget=5.0) == 1
    assert best_judgement(judged, kl_budget=10.0) == 2


def test_what_penalties_take_is_no_gain() -> None:
    judged = [*curve((0.0, 0.0), (0.3, 1.0)), *curve((0.9, 2.0), penalties=-0.7)]
    assert best_judgement(judged, kl_budget=5.0) == 1


def test_of_equal_judgements_the_first_is_best() -> None:
    assert best_judgement(curve((0.1, 0.0), (0.4, 1.0), (0.4, 0.5)), 5.0) == 1


def test_a_run_peaks_when_patience_judgements_bring_nothing_better() -> None:
    judged = curve((0.0, 0.0), (0.5, 1.0), (0.4, 1.5), (0.45, 2.0))
    assert not has_peaked(judged[:3], 5.0, patience=2)
    assert has_peaked(judged, 5.0, patience=2)


def test_what_lies_beyond_the_budget_counts_as_nothing_better() -> None:
    assert has_peaked(curve((0.0, 0.0), (0.5, 6.0), (0.9, 8.0)), 5.0, patience=2)


def test_the_judge_takes_off_its_own_heads_doubts_and_what_the_text_shows() -> None:
    gains, evaluation_gains = np.array([[9.0, -9.0], [9.0, -9.0]]), np.array([[3.0, 1.0], [2.0, 2.0]])
    length, finished = np.array([5, 5]), np.array([True, False])
    samples = Samples(gains, ["one", "two"], ["a", "a"], length, length, finished)
    judges = Judges(None, [], usual_spread=0.25)  # type: ignore[arg-type]
    terms = judges.penalties(PolicySettings(spread_penalty=2.0, usual_spread=9.0, missing_eos_penalty=3.0))
    row = judgement(6, samples, evaluation_gains, terms, k=2, kl=0.5)
    # the heads of the first text differ by 1 in standard deviation, .75 more than the judge's usually do; the second is
    # unfinished
    assert row["penalties"] == pytest.approx((-2.0 * 0.75 - 3.0) / 2)
    assert (row["evaluation_reward"], row["reward"], row["kl"]) == (2.0, 0.0, 0.5)
