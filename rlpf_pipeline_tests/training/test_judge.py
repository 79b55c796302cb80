from rlpf_pipeline.training.judge import best_judgement, has_peaked


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
